"""Where a supervisor goes on that has given back what it needed to start: a program of its own, see `anew`."""

import json
import sys
from importlib import import_module

handed = json.loads(sys.argv[1])
sys.path[:] = handed.pop("path")
import_module(handed.pop("module")).resume(handed)
