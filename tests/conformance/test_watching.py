"""inotify(7) on the mount, and poll(2) and epoll(7) on what is in it."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.child import in_child
from tests.support.systems import System, opened, raises

libc = ctypes.CDLL(None, use_errno=True)

EVENTS = {
    0x2: "modify", 0x4: "attrib", 0x8: "close_write", 0x40: "moved_from", 0x80: "moved_to", 0x100: "create",
    0x200: "delete", 0x400: "delete_self", 0x800: "move_self", 0x8000: "ignored",
}  # fmt: skip
"""inotify(7); without access, open and close_nowrite."""

_WATCHED = sum(EVENTS) - 0x8000
_IS_DIRECTORY = 0x40000000
_HEADER = struct.Struct("iIII")  # wd mask cookie len


class Watch:
    """Events of some paths since they were asked for last."""

    def __init__(self, paths: list[Path]) -> None:
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        self._names: dict[int, str] = {}
        for path in paths:
            number = libc.inotify_add_watch(self.fd, os.fsencode(path), _WATCHED)
            assert number > 0, os.strerror(ctypes.get_errno())
            self._names[number] = path.name

    def events(self) -> list[tuple[str, str, str, int]]:
        """(watched, event, name, cookie) of each; the same twice in a row is one, as the kernel merges them too."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        found: list[tuple[str, str, str, int]] = []
        while data:
            number, mask, cookie, length = _HEADER.unpack_from(data)
            name = data[_HEADER.size : _HEADER.size + length].rstrip(b"\0").decode()
            data = data[_HEADER.size + length :]
            event = (self._names[number], EVENTS[mask & ~_IS_DIRECTORY], name, cookie)
            if event not in found[-1:]:
                found.append(event)
        return found

    def seen(self) -> list[str]:
        """The same as text: "event name"."""
        return [f"{event} {name}".strip() for _, event, name, _ in self.events()]


@contextmanager
def _watching(*paths: Path) -> Iterator[Watch]:
    watch = Watch(list(paths))
    try:
        yield watch
    finally:
        os.close(watch.fd)


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "create": (lambda d: (d / "n").touch(), ["create n", "close_write n"]),
    "write": (lambda d: (d / "f").open("r+").write("x"), ["modify f", "close_write f"]),
    "truncate": (lambda d: os.truncate(d / "f", 3), ["modify f"]),
    "chmod": (lambda d: (d / "f").chmod(0o600), ["attrib f"]),
    "utime": (lambda d: os.utime(d / "f", (5, 5)), ["attrib f"]),
    "setxattr": (lambda d: os.setxattr(d / "f", "user.n", b"x"), ["attrib f"]),
    "unlink": (lambda d: (d / "f").unlink(), ["delete f"]),
    "mkdir": (lambda d: (d / "n").mkdir(), ["create n"]),
    "rmdir": (lambda d: (d / "e/x/f").unlink() or (d / "e/x").rmdir(), []),
    "symlink": (lambda d: (d / "n").symlink_to("f"), ["create n"]),
    "link": (lambda d: (d / "n").hardlink_to(d / "f"), ["create n"]),
    "fifo": (lambda d: os.mkfifo(d / "n"), ["create n"]),
    "rename": (lambda d: (d / "f").rename(d / "n"), ["moved_from f", "moved_to n"]),
    "rename over": (lambda d: (d / "f").rename(d / "g"), ["moved_from f", "moved_to g"]),
    "rename a directory": (lambda d: (d / "e").rename(d / "n"), ["moved_from e", "moved_to n"]),
    "move out": (lambda d: (d / "f").rename(d / "e/n"), ["moved_from f"]),
    "move in": (lambda d: (d / "e/f").rename(d / "n"), ["moved_to n"]),
}


@pytest.mark.parametrize("copied_up", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_watched_directory(root: Path, change: str, copied_up: bool) -> None:
    act, expected = CHANGES[change]
    if copied_up:
        (root / "d/f").write_text("new content")
    with _watching(root / "d") as watch:
        in_child(lambda: act(root / "d"))
        assert watch.seen() == expected
        (root / "d/later").touch()  # a directory of the tree that was copied up meanwhile is the same one
        assert watch.seen() == ["create later", "close_write later"]


def test_cookies_join_the_halves_of_a_rename(root: Path) -> None:
    with _watching(root / "d", root / "m") as watch:
        (root / "d/f").rename(root / "m/n")
        (root / "m/g").rename(root / "d/n")
        events = watch.events()
    assert [event[:3] for event in events] == [
        ("d", "moved_from", "f"), ("m", "moved_to", "n"), ("m", "moved_from", "g"), ("d", "moved_to", "n"),
    ]  # fmt: skip
    cookies = [cookie for *_, cookie in events]
    assert cookies[0] == cookies[1] != cookies[2] == cookies[3] != 0


@pytest.mark.parametrize("new", [False, True])
def test_a_watched_file(root: Path, new: bool) -> None:
    path = root / ("n" if new else "d/f")
    if new:
        path.write_text("new")
    with _watching(path) as watch:
        with path.open("r+") as file:
            file.write("first change")
        assert watch.seen() == ["modify", "close_write"]
        path.chmod(0o600)
        assert watch.seen() == ["attrib"]
        path.rename(root / "moved")
        assert watch.seen() == ["move_self"]
        with (root / "moved").open("a") as file:
            file.write("more")
        assert watch.seen() == ["modify", "close_write"]
        (root / "moved").unlink()
        assert watch.seen() == ["attrib", "delete_self", "ignored"]


def test_a_watched_directory_goes(root: Path) -> None:
    with _watching(root / "empty") as watch:
        (root / "empty").rmdir()
        assert watch.seen() == ["delete_self", "ignored"]


def test_a_change_by_one_name_is_seen_by_another(root: Path) -> None:
    with _watching(root / "d/h") as watch:
        (root / "a").write_text("by another name")
        assert watch.seen() == ["modify", "close_write"]


def test_waiting_for_an_event(root: Path) -> None:
    with _watching(root / "d") as watch:
        assert select.select([watch.fd], [], [], 0)[0] == []
        in_child(lambda: (root / "d/f").chmod(0o600))
        assert select.select([watch.fd], [], [], 10)[0] == [watch.fd]


@pytest.mark.parametrize("name", ["d/f", "new", "d"])
def test_polling(system: System, name: str) -> None:
    """A regular file is always ready and a directory, too; FUSE says so to epoll as well (fuse_file_operations)."""
    root = system.root
    (root / "new").touch()
    with opened(root / name) as fd, select.epoll() as epoll:
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLOUT)
        assert poll.poll(0) == [(fd, select.POLLIN | select.POLLOUT)]
        if system.mounted and name != "d":
            epoll.register(fd, select.EPOLLIN)
            assert epoll.poll(0) == [(fd, select.EPOLLIN)]
        else:
            with raises(errno.EPERM):
                epoll.register(fd, select.EPOLLIN)


def test_polling_a_fifo(root: Path) -> None:
    with opened(root / "p", os.O_RDWR) as fd, select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN)
        assert epoll.poll(0) == []
        with opened(root / "q", os.O_WRONLY) as writing:  # another name of it
            os.write(writing, b"x")
        assert epoll.poll(10) == [(fd, select.EPOLLIN)]
