"""Looks up every name of a list: storm.py NAMES, in the directory that they are relative to."""

import os
import sys

with open(sys.argv[1]) as file:
    names = file.read().split("\n")
there = 0
for name in names:
    there += os.access(name, os.F_OK)
if there * 2 != len(names):
    sys.exit(f"{there} of {len(names)} names are there, not one half")
