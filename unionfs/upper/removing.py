"""Removing a tree of files: without recursion, so of any depth, and never through a symbolic link."""

from __future__ import annotations

import os


def remove_tree(parent: int, name: bytes) -> None:
    """Remove `name` and all below it without recursion. Raises `OSError`."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except IsADirectoryError:
        pass  # Linux answers EISDIR for a directory (unlink(2)).
    os.chmod(b"/proc/self/fd/%d/%s" % (parent, name), 0o700)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    stack = [(os.open(name, flags, dir_fd=parent), name)]
    try:
        while stack:
            fd, own_name = stack[-1]
            child = _unlink_until_directory(fd)
            if child is not None:
                os.chmod(b"/proc/self/fd/%d/%s" % (fd, child), 0o700)
                stack.append((os.open(child, flags, dir_fd=fd), child))
                continue
            stack.pop()
            os.close(fd)
            os.rmdir(own_name, dir_fd=stack[-1][0] if stack else parent)
    finally:
        for fd, _ in stack:
            os.close(fd)


def _unlink_until_directory(fd: int) -> bytes | None:
    """Remove the files of a directory; the name of a directory in it, if there is one."""
    found = None
    # Opened anew: sshfs lists a directory once for each time that it is opened.
    for entry in os.listdir(b"/proc/self/fd/%d" % fd):
        name = os.fsencode(entry)
        try:
            os.unlink(name, dir_fd=fd)
        except IsADirectoryError:
            found = name
    return found
