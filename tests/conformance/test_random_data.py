"""Random data calls on one file, each compared with the bytes it must have: on a file of the tree and on a new one."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from tests.support.systems import System

STEPS, LIMIT = 150, 1_500_000


def _step(rng: random.Random, fd: int, model: bytearray) -> str:
    """One call on `fd`, and the same on `model`."""
    kind = rng.choice(["write", "truncate", "map", "copy"])
    start, length = rng.randrange(len(model) + 5000), rng.randrange(1, 70_000)
    data = rng.randbytes(length)
    if kind == "map" and len(model) > 1:
        start = rng.randrange(len(model))
        data = data[: len(model) - start]
        with mmap.mmap(fd, len(model)) as view:
            view[start : start + len(data)] = data
    elif kind == "truncate" or start + length > LIMIT:
        size = rng.randrange(LIMIT)
        os.ftruncate(fd, size)
        model[size:] = bytes(max(0, size - len(model)))
        return f"truncate to {size}"
    elif kind == "copy" and len(model) > length + 1:
        source = rng.randrange(len(model) - length)
        if abs(source - start) < length:
            return "nothing"  # the ranges may not overlap, copy_file_range(2)
        data = bytes(model[source : source + length])
        data = data[: os.copy_file_range(fd, fd, length, source, start)]
    else:
        os.pwrite(fd, data, start)
    model.extend(bytes(max(0, start - len(model))))
    model[start : start + len(data)] = data
    return f"{kind} {len(data)} bytes at {start}"


def _check(path: Path, fd: int, model: bytearray, done: list[str]) -> None:
    same = os.fstat(fd).st_size == len(model) and os.pread(fd, LIMIT + 100_000, 0) == model
    assert same, f"the descriptor differs after: {done}"
    assert path.read_bytes() == model, f"the name differs after: {done}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["big", "new"])
def test_random_data_calls(system: System, name: str, seed: int) -> None:
    path, rng, done = system.root / name, random.Random(seed), list[str]()
    model = bytearray(path.read_bytes() if path.exists() else b"")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        for number in range(STEPS):
            done.append(_step(rng, fd, model))
            if rng.random() < 0.1:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if rng.random() < 0.05:
                os.close(fd)
                fd = os.open(path, os.O_RDWR)
            if number % 10 == 0:
                _check(path, fd, model, done)
        _check(path, fd, model, done)
    finally:
        os.close(fd)
    system.remount()
    assert path.read_bytes() == model, done
