"""Terminals: the container's own (a pty of its devpts) and the caller's, which is made raw meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

_WINSIZE = 8  # bytes of struct winsize: rows, columns and two unused, unsigned shorts
_TIOCGPTN, _TIOCSPTLCK = 0x80045430, 0x40045431  # ioctl_tty(2); Python 3.11 does not name them


def adopt(size: bytes, *, console: bool) -> int:
    """In the container: make a pty this session's terminal and standard streams; the master's descriptor.

    The process must be a session leader without a terminal. `size` is a struct winsize, or empty. `console`: it is
    /dev/console, too.
    """
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
    number = int.from_bytes(fcntl.ioctl(master, _TIOCGPTN, b"\0\0\0\0"), sys.byteorder)
    if size:
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
    name = f"/dev/pts/{number}"
    slave = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    if console:
        from launcher.sandbox import devices  # `rootfs` has imported it; a supervisor has no use for it

        devices.attach_console(name)
    for stream in (0, 1, 2):
        os.dup2(slave, stream)
    os.close(slave)
    return master


def window_size(descriptor: int) -> bytes:
    """The struct winsize of a terminal, or b"" for what is none."""
    try:
        return fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * _WINSIZE)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EBADF, errno.EINVAL):
            return b""
        raise


def set_window_size(descriptor: int, size: bytes) -> None:
    """Pass a struct winsize on; the kernel sends SIGWINCH to the terminal's foreground."""
    if size:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)


def interrupts(master: int, typed: bytes) -> bool:
    """Whether `typed` makes the terminal send SIGINT to its foreground."""
    mode = termios.tcgetattr(master)
    return bool(mode[3] & termios.ISIG) and mode[6][termios.VINTR] in typed


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """The terminal `descriptor` passes every byte through unchanged within; restored on every way out."""
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    # termios(3), cfmakeraw
    mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
                 | termios.IGNCR | termios.ICRNL | termios.IXON)  # fmt: skip
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    try:
        yield
    finally:
        # TCSADRAIN could wait for a reader that is gone; TCSANOW cannot.
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
