"""What the workloads work on. Everything is made from fixed seeds, so every run has the same.

Each maker is called with an empty directory and returns the lower directories below it, topmost first.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.suite.sizes import Sizes

Maker = Callable[[Path, Sizes], list[Path]]

_MEAN = 4000
_LONGEST = 60_000
_TOPS = 50
_IN_A_DIRECTORY = 12
_BLOCK = random.Random(0).randbytes(2 * _LONGEST)


def spread(base: Path, count: int, mean: int = _MEAN, tops: int = _TOPS) -> list[str]:
    """`count` files with a mean size of `mean` bytes in directories of twelve; their names relative to `base`."""
    rng = random.Random(count)
    names = []
    made: set[str] = set()
    for number in range(count):
        directory = f"d{number * tops // count:02}/e{number // _IN_A_DIRECTORY:05}"
        if directory not in made:
            (base / directory).mkdir(parents=True, exist_ok=True)
            made.add(directory)
        name = f"{directory}/file-{number:05}.txt"
        write(base / name, rng, mean)
        names.append(name)
    return names


def write(path: Path, rng: random.Random, mean: int) -> None:
    """A file of pseudo-random text of an exponentially distributed size."""
    size = min(_LONGEST, int(rng.expovariate(1 / mean)))
    start = rng.randrange(_LONGEST)
    with open(path, "wb") as file:
        file.write(_BLOCK[start : start + size])


def files(base: Path, sizes: Sizes) -> list[Path]:
    """Many small files, for walking and reading."""
    spread(base / "0", sizes.files)
    return [base / "0"]


def small(base: Path, sizes: Sizes) -> list[Path]:
    """tree/ with small files, and beside the lower directory a tar of them."""
    spread(base / "0" / "tree", sizes.small)
    subprocess.run(["tar", "-cf", base / "small.tar", "-C", base / "0" / "tree", "."], check=True)
    return [base / "0"]


def renamed(base: Path, sizes: Sizes) -> list[Path]:
    """tree/ with small files, to be renamed."""
    spread(base / "0" / "tree", sizes.renamed, mean=200)
    return [base / "0"]


def big(base: Path, sizes: Sizes) -> list[Path]:
    """One large file."""
    (base / "0").mkdir()
    block = random.Random(1).randbytes(1 << 20)
    with open(base / "0" / "big", "wb") as file:
        for _ in range(sizes.big_mib):
            file.write(block)
    return [base / "0"]


def nothing(base: Path, sizes: Sizes) -> list[Path]:
    """An empty lower directory, for workloads that make all they need."""
    (base / "0").mkdir()
    return [base / "0"]


def layers(depth: int) -> Maker:
    """Files spread over `depth` lower directories, and names/: existing names and as many that do not exist."""

    def make(base: Path, sizes: Sizes) -> list[Path]:
        rng = random.Random(depth)
        found = [base / str(number) for number in range(depth)]
        for path in found:
            path.mkdir()
        names = []
        for number in range(sizes.layered):
            directory = f"d{number // 1000:02}/e{number // _IN_A_DIRECTORY:05}"
            # The same for every depth, but for which layer has it: a directory is in up to twelve of them.
            layer = found[number * 7919 % depth]
            (layer / directory).mkdir(parents=True, exist_ok=True)
            name = f"{directory}/file-{number:05}.txt"
            write(layer / name, rng, 500)
            names += [name, f"{directory}/absent-{number:05}.txt"]
        random.Random(2).shuffle(names)
        (base / "names").write_text("\n".join(names))
        return found

    make.__name__ = f"layers-{depth}"
    return make


_UNIT = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{includes}
static int step_{number}(const struct item *item, int round) {{
    char text[64];
    snprintf(text, sizeof text, "%s-%d", item->name, round * {number});
    return (int)strlen(text) + item->value;
}}
int unit_{number}(int rounds) {{
    struct item item = {{"unit", {number}}};
    int sum = 0;
    for (int i = 0; i < rounds; i++)
        sum += step_{number}(&item, i) ^ {calls};
    return sum;
}}
"""
_HEADERS = 60


def project(base: Path, sizes: Sizes) -> list[Path]:
    """A C project: a Makefile, headers that most units include, and units that are linked to one program."""
    root = base / "0"
    (root / "include").mkdir(parents=True)
    (root / "src").mkdir()
    (root / "include" / "item.h").write_text("#pragma once\nstruct item { const char *name; int value; };\n")
    for number in range(_HEADERS):
        text = f"#pragma once\n#include <item.h>\nstatic inline int helper_{number}(int x) {{ return x * {number}; }}\n"
        (root / "include" / f"helper_{number}.h").write_text(text)
    units = range(sizes.units)
    for number in units:
        chosen = random.Random(number).sample(range(_HEADERS), 30)
        includes = "".join(f"#include <helper_{header}.h>\n" for header in chosen)
        calls = " ^ ".join(f"helper_{header}(i)" for header in chosen)
        (root / "src" / f"unit_{number}.c").write_text(_UNIT.format(number=number, includes=includes, calls=calls))
    declared = "".join(f"int unit_{number}(int);\n" for number in units)
    summed = " + ".join(f"unit_{number}(9)" for number in units)
    main = f'#include <stdio.h>\n{declared}int main(void) {{ return printf("%d\\n", {summed}) < 0; }}\n'
    (root / "src" / "main.c").write_text(main)
    (root / "Makefile").write_text(
        "OBJECTS = $(patsubst src/%.c,build/%.o,$(wildcard src/*.c))\n"
        "build/program: $(OBJECTS)\n\tgcc -o $@ $^\n"
        "build/%.o: src/%.c\n\t@mkdir -p build\n\tgcc -O1 -Iinclude -MMD -c -o $@ $<\n"
    )
    return [root]
