"""The last steps of the container's process: environment, finding the program, exec."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import NoReturn

from launcher.errors import UfsError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NOT_EXECUTABLE, NOT_FOUND = 126, 127


def enter_directory(path: str) -> None:
    """chdir(2) to the working directory, made where it is not there (as Docker does), also by way of a link to nothing.

    In the container's own layer it is there already; what is made here is in a volume.
    """
    try:
        if not os.path.exists(path):
            os.makedirs(os.path.realpath(path), 0o755, exist_ok=True)
        os.chdir(path)
    except OSError as error:
        raise UfsError(f"cannot enter the working directory {path!r}: {error.strerror}", 125) from error
    # A descriptor of the host left open could have been reached by /proc/self/fd/N (CVE-2024-21626).
    if not os.getcwd().startswith("/"):
        raise UfsError(f"the working directory {path!r} lies outside the container", 125)


def execute(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become the command; raises `UfsError` with status 126 or 127 where that is not possible."""
    name = argv[0]
    if "/" in name:
        candidates = [name]
    else:
        path = environment.get("PATH", DEFAULT_PATH)
        candidates = [os.path.join(directory or ".", name) for directory in path.split(":")]
    raw = {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
    denied = None
    for candidate in candidates:
        try:
            os.execve(candidate, [os.fsencode(word) for word in argv], raw)
        except FileNotFoundError as error:
            if os.path.isfile(candidate):
                raise _no_interpreter(candidate) from error
        except NotADirectoryError:
            continue
        except PermissionError:
            # execvp(3): go on searching, and report the refusal if nothing better comes.
            denied = denied or candidate
        except OSError as error:
            raise _refused(candidate, error) from error
        except ValueError as error:  # what Python finds wrong before it calls execve(2)
            raise UfsError(f"cannot run {candidate}: {error}", NOT_EXECUTABLE) from error
    if denied is not None:
        why = "is a directory" if os.path.isdir(denied) else "permission denied (no execute permission?)"
        raise UfsError(f"cannot run {denied}: {why}", NOT_EXECUTABLE)
    if name.startswith("-"):
        raise UfsError(f"cannot run {name}: this is no command; options of ufs-run go before IMAGE", NOT_FOUND)
    where = f"no such file {name}" if "/" in name else f"{name} not found in PATH ({path})"
    raise UfsError(f"cannot run {name}: {where} in the container", NOT_FOUND)


def _no_interpreter(path: str) -> UfsError:
    """execve(2) says ENOENT also when the file is there and what it needs to be run is not."""
    head = b""
    if stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.R_OK):
        with open(path, "rb") as program:
            head = program.read(256)
    if head.startswith(b"#!"):
        needed = head[2:].split(b"\n")[0].split()
        what = f"its interpreter {needed[0].decode(errors='replace')}" if needed else "its interpreter"
    else:
        what = "the dynamic loader that it names"
    return UfsError(f"cannot run {path}: the file is there, {what} is not in the container", NOT_FOUND)


def _refused(path: str, error: OSError) -> UfsError:
    if error.errno == errno.ENOEXEC:
        why = f"not a program for this machine ({os.uname().machine}), and no #! line"
    else:
        why = error.strerror or str(error)
    return UfsError(f"cannot run {path}: {why}", NOT_EXECUTABLE)
