"""The errno of every call that takes a path, by what there is to the path: of the tree, new, or removed.

A call that fails changes nothing. What a call says does not depend on what the kernel or the server remembers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.paths import LONGEST, PATHS, calls, link_following, located, name_of_error, prepare
from tests.support.systems import System, raises
from unionfs import syscalls

ALWAYS = {
    "no parent": "ENOENT",
    "in a file": "ENOTDIR",
    "in a loop": "ELOOP",
    "empty": "ENOENT",
    "256": "ENAMETOOLONG",
    "4096": "ENAMETOOLONG",
}
"""Of the kinds of `PATHS`, what every call says."""

TABLE = """
            none     none/    dangling dangling/ loop    file     file/    link     /.       /..      dir      dir/     full
stat        NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
lstat       NOENT    NOENT    ok       NOENT    ok       ok       NOTDIR   ok       ok       ok       ok       ok       ok
access      NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
statvfs     NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
chdir       NOENT    NOENT    NOENT    NOENT    LOOP     NOTDIR   NOTDIR   NOTDIR   ok       ok       ok       ok       ok
execve      NOENT    NOENT    NOENT    NOENT    LOOP     ACCES    NOTDIR   ACCES    ACCES    ACCES    ACCES    ACCES    ACCES
readlink    NOENT    NOENT    ok       NOENT    ok       INVAL    NOTDIR   ok       INVAL    INVAL    INVAL    INVAL    INVAL
listdir     NOENT    NOENT    NOENT    NOENT    LOOP     NOTDIR   NOTDIR   NOTDIR   ok       ok       ok       ok       ok
listxattr   NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
getxattr    NOENT    NOENT    NOENT    NOENT    LOOP     NODATA   NOTDIR   NODATA   NODATA   NODATA   NODATA   NODATA   NODATA
removexattr NOENT    NOENT    NOENT    NOENT    LOOP     NODATA   NOTDIR   NODATA   NODATA   NODATA   NODATA   NODATA   NODATA
setxattr    NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
read        NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
path        NOENT    NOENT    ok       NOENT    ok       ok       NOTDIR   ok       ok       ok       ok       ok       ok
nofollow    NOENT    NOENT    LOOP     NOENT    LOOP     ok       NOTDIR   LOOP     ok       ok       ok       ok       ok
directory   NOENT    NOENT    NOENT    NOENT    LOOP     NOTDIR   NOTDIR   NOTDIR   ok       ok       ok       ok       ok
write       NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ISDIR    ISDIR    ISDIR    ISDIR    ISDIR
trunc       NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ISDIR    ISDIR    ISDIR    ISDIR    ISDIR
creat       ok       ISDIR    ok       ISDIR    LOOP     ok       ISDIR    ok       ISDIR    ISDIR    ISDIR    ISDIR    ISDIR
excl        ok       ISDIR    EXIST    ISDIR    EXIST    EXIST    ISDIR    EXIST    EXIST    EXIST    EXIST    ISDIR    EXIST
truncate    NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ISDIR    ISDIR    ISDIR    ISDIR    ISDIR
chmod       NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
chown       NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
lchown      NOENT    NOENT    ok       NOENT    ok       ok       NOTDIR   ok       ok       ok       ok       ok       ok
utime       NOENT    NOENT    NOENT    NOENT    LOOP     ok       NOTDIR   ok       ok       ok       ok       ok       ok
mkdir       ok       ok       EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST
mknod       ok       NOENT    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST
symlink     ok       NOENT    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST
link        NOENT    NOENT    ok       NOENT    ok       ok       NOTDIR   ok       PERM     PERM     PERM     PERM     PERM
link-to     ok       NOENT    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST    EXIST
rename      NOENT    NOENT    ok       NOTDIR   ok       ok       NOTDIR   ok       BUSY     BUSY     ok       ok       ok
rename-to   ok       NOTDIR   ok       NOTDIR   ok       ok       NOTDIR   ok       BUSY     BUSY     ISDIR    NOTDIR   ISDIR
unlink      NOENT    NOENT    ok       NOTDIR   ok       ok       NOTDIR   ok       ISDIR    ISDIR    ISDIR    ISDIR    ISDIR
rmdir       NOENT    NOENT    NOTDIR   NOTDIR   NOTDIR   NOTDIR   NOTDIR   NOTDIR   INVAL    NOTEMPTY ok       ok       NOTEMPTY
"""  # noqa: E501 (a table)
"""What each of `calls` says of a path of each kind, without the E."""


def _expected() -> dict[str, dict[str, str]]:
    (_, kinds), *rows = [(line[:11].strip(), line[11:].split()) for line in TABLE.strip("\n").splitlines()]
    of_row = {call: [word if word == "ok" else f"E{word}" for word in words] for call, words in rows}
    return {call: {**ALWAYS, **dict(zip(kinds, words, strict=True))} for call, words in of_row.items()}


EXPECTED = _expected()


def test_the_table_is_whole() -> None:
    assert EXPECTED.keys() == calls(Path("/")).keys()
    for call, row in EXPECTED.items():
        assert row.keys() == PATHS.keys(), call


PAIRS = """
rename      d            d/new        EINVAL     # into itself
rename      d            d/e/new      EINVAL
rename      d            d/e          EINVAL
rename      new          new/d        EINVAL
rename      new/full     new/full/sub EINVAL
rename      t            d/new        ok         # a symbolic link to a directory is none
rename      d/e          d            ENOTEMPTY  # onto what it is in
rename      d/g          d            ENOTEMPTY
rename      new/full/f   new          ENOTEMPTY
rename      new/full/sub new/full     ENOTEMPTY
rename      empty        d            ENOTEMPTY
rename      empty        new/full     ENOTEMPTY
rename      new/d        d            ENOTEMPTY
rename      d/g          empty        EISDIR     # of two types
rename      d/g          d/e          EISDIR
rename      new/f        empty        EISDIR
rename      new/f        new/full     EISDIR
rename      new/loop     new/d        EISDIR
rename      p            new/d        EISDIR
rename      empty        d/g          ENOTDIR
rename      empty        new/f        ENOTDIR
rename      empty        t            ENOTDIR
rename      new/d        a            ENOTDIR
rename      new/d        p            ENOTDIR
rename      new/full     new/dangling ENOTDIR
rename      d/g          nil/         ENOTDIR
rename      void         d/g          ENOENT     # removed
rename      void         empty        ENOENT
rename      void         void         ENOENT
rename      m            empty        ENOENT
rename      m            m/x          ENOENT
rename      new/passed   d/g          ENOENT
rename      d/g          m/x          ENOENT
rename      empty        void/x       ENOENT
rename      d/g          d/g          ok         # of what there is to itself, or to its other name
rename      empty        empty        ok
rename      d            d            ok
rename      a            b            ok
rename      d/h          a            ok
rename      new/f        new/f        ok
rename      empty        void         ok         # over what was removed
rename      new/full     m            ok
rename      p            d/f          ok
rename      new/d        nil/         ok
noreplace   d/g          d/h          EEXIST
noreplace   d/g          d/g          EEXIST
noreplace   new/f        d            EEXIST
noreplace   d            new/d        EEXIST
noreplace   d            d/e/new      EINVAL
noreplace   void         d/g          ENOENT
noreplace   d/g          void         ok
noreplace   new/dd       m            ok
exchange    d/g          void         ENOENT
exchange    d/g          none         ENOENT
exchange    void         d/g          ENOENT
exchange    d            d/e          EINVAL
exchange    d/e          d            EINVAL
exchange    new/full/f   new/full     EINVAL
exchange    d/g          new/f/       ENOTDIR
exchange    d/g          d/g          ok
exchange    d/g          empty        ok
exchange    new/f        d            ok
both        d/g          new/f        EINVAL     # exchange and noreplace
link        d            new/x        EPERM
link        new/d        d/x          EPERM
link        d            a            EEXIST
link        d            d            EEXIST
link        a            b            EEXIST
link        a            a            EEXIST
link        a            empty        EEXIST
link        a            new/dangling EEXIST
link        new/f        d/g          EEXIST
link        a            nil/         ENOENT
link        void         new/x        ENOENT
link        void         void         ENOENT
link        d/e/f        d/f          ENOENT
link        new/f        m/x          ENOENT
link        a            void         ok
link        new/f        m            ok
link        new/loop     d/f          ok
follow      new/l        d/x          ok         # AT_SYMLINK_FOLLOW
follow      new/dangling d/y          ENOENT
follow      new/loop     d/y          ELOOP
follow      s            d/y          ENOENT
follow      t            d/y          EPERM
"""
"""What each of `PAIR_CALLS` says of two paths of the content as `prepare` leaves it."""


def _renaming(flags: int) -> Callable[[str, str], None]:
    return lambda one, other: syscalls.renameat2(-1, os.fsencode(one), -1, os.fsencode(other), flags)


PAIR_CALLS: dict[str, Callable[[str, str], None]] = {
    "rename": os.rename,
    "noreplace": _renaming(syscalls.RENAME_NOREPLACE),
    "exchange": _renaming(syscalls.RENAME_EXCHANGE),
    "both": _renaming(syscalls.RENAME_EXCHANGE | syscalls.RENAME_NOREPLACE),
    "link": os.link,
    "follow": link_following,
}


def _everything(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """Mode, size, number of links and time of each path."""
    found = {}
    for above, directories, files in os.walk(root):
        for name in [".", *directories, *files]:
            status = os.lstat(os.path.join(above, name))
            found[os.path.join(above, name)] = status.st_mode, status.st_size, status.st_nlink, status.st_mtime_ns
    return found


def _wrong(root: Path, call: str, good: bool) -> dict[str, tuple[str, str]]:
    """Paths that the table is not right about, as (what it says, what came)."""
    made = calls(root)[call]
    wrong = {}
    for kind, paths in PATHS.items():
        expected = EXPECTED[call][kind]
        for path in paths if (expected == "ok") == good else ():
            came = name_of_error(made, located(root, kind, path))
            if came != expected:
                wrong[path] = expected, came
    return wrong


@pytest.mark.parametrize("call", EXPECTED)
def test_one_path(system: System, call: str) -> None:
    root = system.root
    prepare(root)
    assert _wrong(root, call, good=False) == {}
    system.remount()
    before = _everything(root)
    assert _wrong(root, call, good=False) == {}
    assert _everything(root) == before
    system.remount()
    assert _wrong(root, call, good=True) == {}
    after = _everything(root)
    system.remount()
    assert _everything(root) == after


ROWS = [line.partition("#")[0].split() for line in PAIRS.strip("\n").splitlines()]


def _wrong_pairs(root: Path) -> dict[str, str]:
    """Rows of an error that got something else."""
    found = {}
    for call, one, other, expected in ROWS:
        if expected != "ok":
            came = name_of_error(PAIR_CALLS[call], f"{root}/{one}", f"{root}/{other}")
            if came != expected:
                found[f"{call} {one} {other}"] = f"{came}, not {expected}"
    return found


def test_two_paths(system: System) -> None:
    root = system.root
    prepare(root)
    assert _wrong_pairs(root) == {}
    system.remount()
    before = _everything(root)
    assert _wrong_pairs(root) == {}
    assert _everything(root) == before


@pytest.mark.parametrize("row", [row for row in ROWS if row[-1] == "ok"], ids=" ".join)
def test_two_paths_that_are_right(system: System, row: list[str]) -> None:
    root = system.root
    prepare(root)
    system.remount()
    call, one, other, _ = row
    PAIR_CALLS[call](f"{root}/{one}", f"{root}/{other}")
    after = _everything(root)
    system.remount()
    assert _everything(root) == after


def test_how_long_a_target_may_be(system: System) -> None:
    link = system.root / "d/long"
    for target, code in (("", errno.ENOENT), ("x" * (LONGEST + 1), errno.ENAMETOOLONG)):
        with raises(code):
            link.symlink_to(target)
    link.symlink_to("x" * LONGEST)
    system.remount()
    assert os.readlink(link) == "x" * LONGEST
    with raises(errno.ENAMETOOLONG):
        os.stat(link)
