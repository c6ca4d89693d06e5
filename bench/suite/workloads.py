"""The workloads: groups of steps on one mount. A step is a shell command in the mount, with real programs.

Environment: CONTENT is the directory of the group's content, SUITE that of this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.suite import content
from bench.suite.sizes import Sizes

# GNU tar does not read files when it sees that the archive is /dev/null. Writing to /dev/zero costs as little.
_WALK = "find . -printf '%s\\n' >/dev/null"
_READ = "tar -cf - . >/dev/zero"
_FIO = (
    "fio --name=job --directory=. --size={fio_mib}m --rw=randrw --bs=4k --numjobs=4 --thread --ioengine=psync "
    "--randrepeat=1 --end_fsync=1 --clocksource=clock_gettime --output=/dev/null"
)


@dataclass(frozen=True)
class Step:
    """What is timed. `command` and `prepare` are formatted with the fields of `Sizes`."""

    name: str
    command: str
    fresh: bool = False
    """On a fresh mount of what is there: the kernel knows nothing of it, unlike a plain directory."""
    needs: tuple[str, ...] = ()
    """Steps of the group that must have run before."""
    prepare: str = ""
    """Run before, not timed."""
    programs: tuple[str, ...] = ()
    """Without these the step is left out."""


@dataclass(frozen=True)
class Group:
    """Steps in their order on one mount over one content."""

    name: str
    make: content.Maker
    steps: tuple[Step, ...]
    writes: bool = True

    @property
    def content(self) -> str:
        """Groups with the same maker share what it made: nothing changes the lower directories."""
        return self.make.__name__


def _layers(depth: int) -> Group:
    return Group(
        f"layers-{depth}",
        content.layers(depth),
        (
            Step(f"layers-{depth}-walk", _WALK),
            Step(f"layers-{depth}-lookup", 'python3 -IS "$SUITE/storm.py" "$CONTENT/names"', fresh=True),
        ),
        writes=False,
    )


_PARALLEL = """
find d0? -printf '%s\\n' >/dev/null & a=$!
find d0? -printf '%s\\n' >/dev/null & b=$!
tar -cf - d0? >/dev/zero & c=$!
tar -cf - d0? >/dev/zero
wait $a; wait $b; wait $c
"""
_GIT = "git init -q && git add -A && git commit -q -m all && git status --short && git gc -q"
_BIG = "dd if=/dev/zero bs=1M count={big_mib} status=none of=new"

GROUPS = (
    Group(
        "files",
        content.files,
        (
            Step("walk-cold", _WALK),
            Step("walk-hot", _WALK, needs=("walk-cold",)),
            Step("read-cold", _READ, fresh=True),
            Step("read-hot", _READ, needs=("read-cold",)),
            Step("parallel", _PARALLEL, fresh=True),
        ),
        writes=False,
    ),
    Group(
        "small",
        content.small,
        (
            Step("unpack", 'mkdir new && tar -xf "$CONTENT/small.tar" -C new'),
            Step("chmod-all", "chmod -R g+w new", needs=("unpack",)),
            Step("remove-new", "rm -rf new", needs=("unpack",)),
            Step("remove-lower", "rm -rf tree"),
        ),
    ),
    Group("renamed", content.renamed, (Step("rename-dir", "mv tree moved"),)),
    Group(
        "big",
        content.big,
        (
            Step("write-big-cold", _BIG),
            Step("write-big-hot", _BIG + " conv=notrunc", needs=("write-big-cold",)),
            Step("read-big-cold", "dd if=big of=/dev/null bs=1M status=none", prepare="rm -f new", fresh=True),
            Step("read-big-hot", "dd if=big of=/dev/null bs=1M status=none", needs=("read-big-cold",)),
            Step("copy-up-big", "dd if=/dev/zero of=big bs=1 count=1 conv=notrunc status=none", fresh=True),
        ),
    ),
    Group(
        "data",
        content.nothing,
        (
            Step("random-rw", _FIO, prepare=_FIO + " --create_only=1", programs=("fio",)),
            Step("sqlite", 'python3 -IS "$SUITE/transactions.py" database {transactions} {rows}'),
        ),
    ),
    Group("git", content.small, (Step("git", f"cd tree && {_GIT}", programs=("git",)),)),
    Group("build", content.project, (Step("build", "make -s -j2", programs=("make", "gcc")),)),
    _layers(1),
    _layers(32),
    _layers(128),
)


def chosen(names: list[str]) -> list[tuple[Group, frozenset[str]]]:
    """Groups with the steps to report, by names of steps or of groups; all of them for no names."""
    found = []
    for group in GROUPS:
        steps = frozenset(s.name for s in group.steps if not names or s.name in names or group.name in names)
        if steps:
            found.append((group, steps))
    return found


def wanted(group: Group, reported: frozenset[str]) -> list[Step]:
    """The steps to run: those to report and what they need."""
    needed = set(reported)
    for step in reversed(group.steps):
        if step.name in needed:
            needed.update(step.needs)
    return [step for step in group.steps if step.name in needed]


def known() -> list[str]:
    """All names of steps and groups."""
    return [name for group in GROUPS for name in dict.fromkeys([group.name, *(s.name for s in group.steps)])]


def filled(command: str, sizes: Sizes) -> str:
    """A command with the sizes in place of their names; braces occur for nothing else."""
    return command.format(**vars(sizes))
