"""Extended attributes: flags, sizes, namespaces (setxattr(2), getxattr(2), listxattr(2), xattr(7))."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from tests.support.systems import raises

libc = ctypes.CDLL(None, use_errno=True)


@pytest.mark.parametrize("name", ["d/f", "d", "big"])
def test_create_and_replace(root: Path, name: str) -> None:
    path = root / name
    with raises(errno.ENODATA):
        os.setxattr(path, "user.n", b"x", os.XATTR_REPLACE)
    os.setxattr(path, "user.n", b"x", os.XATTR_CREATE)
    with raises(errno.EEXIST):
        os.setxattr(path, "user.n", b"y", os.XATTR_CREATE)
    os.setxattr(path, "user.n", b"z", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.n") == b"z"


def test_what_the_tree_has_counts_as_there(root: Path) -> None:
    with raises(errno.EEXIST):
        os.setxattr(root / "a", "user.two", b"x", os.XATTR_CREATE)
    os.setxattr(root / "a", "user.two", b"x", os.XATTR_REPLACE)
    assert os.getxattr(root / "b", "user.two") == b"x"


def test_too_small_a_buffer(root: Path) -> None:
    path, room = os.fsencode(root / "a"), ctypes.create_string_buffer(2)
    assert libc.getxattr(path, b"user.two", None, 0) == 3
    assert libc.getxattr(path, b"user.two", room, 2) == -1
    assert ctypes.get_errno() == errno.ERANGE
    assert libc.listxattr(path, room, 2) == -1
    assert ctypes.get_errno() == errno.ERANGE


def test_limits(root: Path) -> None:
    with raises(errno.E2BIG):
        os.setxattr(root / "a", "user.n", bytes(65_537))
    with raises(errno.ERANGE):
        os.setxattr(root / "a", "user." + "n" * 251, b"")
    os.setxattr(root / "a", "user." + "n" * 250, b"x")
    assert "user." + "n" * 250 in os.listxattr(root / "a")


def test_names_outside_the_namespaces(root: Path) -> None:
    for name in ("none.n", "n", "user."):
        with raises(errno.EINVAL if name == "user." else errno.EOPNOTSUPP):
            os.setxattr(root / "a", name, b"x")


def test_user_names_are_for_files_and_directories(root: Path) -> None:
    for name in ("s", "p"):
        with raises(errno.EPERM):
            os.setxattr(root / name, "user.n", b"x", follow_symlinks=False)


@pytest.mark.real_root
def test_trusted_and_security_names(root: Path) -> None:
    for name in ("trusted.n", "security.n"):
        os.setxattr(root / "d/f", name, b"x")
        assert os.getxattr(root / "d/f", name) == b"x"
