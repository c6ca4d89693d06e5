"""What a process gets from its caller, put right before anything else; and an end that the caller understands."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def put_right() -> None:
    """Standard streams that the caller closed lead to /dev/null: a later open would take their numbers.

    The umask may keep others out of what is made, but not its owner.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # EBADF is the only one that a descriptor of any kind gives
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))
    os.umask(os.umask(0o077) & 0o077)


def let_go() -> None:
    """Close what the caller had open beside the standard streams: a process that outlives it would keep that open.

    A pipe of the caller's would never end, nor a lock or the jobserver of make(1). What went through execve(2) is told
    from our own, which is all close-on-exec (PEP 446).
    """
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # EBADF: the descriptor that listed them
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.close(int(name))


def die_of(number: int) -> NoReturn:
    """End by signal `number`, as a program that does not handle it.

    A status of 128 + number is not the same: a shell that runs a loop ends it only when it sees that what it waited
    for was killed by SIGINT (https://www.cons.org/cracauer/sigint.html).
    """
    import signal

    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # only where it is blocked from outside, as for the first process of a pid namespace
