"""The process at one end of a copy: it stands where the files are, and does there what it is asked.

    command                          worker
       | ---- look {path, follow} ------> |
       | <--- seen {what, name} --------- |   directory, other, special (device, fifo), missing, nowhere
       | ---- send {path, follow, name} + fd --> |   the tree at `path`, as `name`, into the descriptor
       | <--- sent ---------------------- |
       | ---- take {path, into, owners, trusted, label, place} + fd --> |   `into`: in `path`, else as it
       | <--- taken {left_out} ---------- |
       | ---- whole + fd ---------------> |   the tree from the root, as an archive
       | <--- sent ---------------------- |
       | ---- end of file --------------> |   ends

In a container its root is the container's, so that links and ".." lead nowhere else, and magic links of /proc are not
followed (CVE-2019-14271, CVE-2018-15664: docker cp).
"""

from __future__ import annotations

import errno
import os
import stat

from launcher.errors import UfsError, describe
from launcher.sandbox import syscalls
from launcher.sandbox.protocol import Channel, Message
from launcher.transfer.pack import Packer
from launcher.transfer.unpack import Rules, Unpacker

_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "other", stat.S_IFLNK: "other"}
_ABSENT = (FileNotFoundError, NotADirectoryError)


class Worker:
    """`confined`: this process's root is all that there is. Relative paths begin in its current directory."""

    def __init__(self, channel: Channel, confined: bool) -> None:
        self._channel = channel
        self._confined = confined
        self._root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def serve(self) -> int:
        """Answer until nobody asks any more; the exit status."""
        answers = {"look": self._look, "send": self._send, "take": self._take, "whole": self._whole}
        while (message := self._channel.receive()) is not None:
            try:
                answers[message.kind](message)
            except (UfsError, OSError, RecursionError, MemoryError) as error:
                self._channel.fail(describe(error), 1)
            finally:
                for descriptor in message.descriptors:
                    os.close(descriptor)
        return 0

    def _look(self, message: Message) -> None:
        path = os.fsencode(message.fields["path"])
        name = ""
        try:
            found = self._open(path, message.fields["follow"])
        except NotADirectoryError as error:
            raise OSError(error.errno, os.strerror(error.errno or errno.EIO), path) from error
        except FileNotFoundError:
            above, last = self._split(path)
            kind = "missing" if self._is_directory(above) and last else "nowhere"
            name = os.fsdecode(last)
        else:
            kind = _KINDS.get(stat.S_IFMT(os.fstat(found).st_mode), "special")
            os.close(found)
            if kind != "directory" and path.rstrip(b".").endswith(b"/"):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if message.fields["follow"]:
                name = os.fsdecode(self._split(path)[1])
        self._channel.send("seen", what=kind, name=name)

    def _send(self, message: Message) -> None:
        path, follow = os.fsencode(message.fields["path"]), message.fields["follow"]
        packer = Packer(message.descriptors[0])
        name = os.fsencode(message.fields["name"])
        found = self._open(path, follow)
        directory = stat.S_ISDIR(os.fstat(found).st_mode)
        try:
            if directory:
                parent, last = found, b"."
            else:
                above, last = self._split(path) if follow else os.path.split(path)
                parent = self._open(above or b".", True)
            packer.tree(parent, last, name)
            packer.finish()
            if parent != found:
                os.close(parent)
        except BrokenPipeError:
            pass  # who takes it has given up, and says why
        finally:
            os.close(found)
        self._channel.send("sent")

    def _whole(self, message: Message) -> None:
        packer = Packer(message.descriptors[0])
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        packer.tree(root, b".", b".")
        packer.finish()
        self._channel.send("sent")

    def _take(self, message: Message) -> None:
        fields = message.fields
        path = os.fsencode(fields["path"])
        root = self._open(path if fields["into"] else self._split(path)[0], True)
        unpacker = Unpacker(root, Rules(fields["owners"], fields["trusted"], fields["label"], fields["place"]))
        with os.fdopen(os.dup(message.descriptors[0]), "rb") as stream:
            unpacker.all(stream)
            while stream.read(1 << 16):  # so that who sends does not find it closed
                pass
        os.close(root)
        self._channel.send("taken", left_out=unpacker.left_out[:20])

    def _open(self, path: bytes, follow: bool) -> int:
        """An O_PATH descriptor."""
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        if not self._confined:
            return os.open(path, flags | os.O_CLOEXEC, dir_fd=self._home)
        resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        try:
            return syscalls.openat2(path, flags, resolve=resolve, directory=self._root)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or errno.EIO), path) from error

    def _split(self, path: bytes) -> tuple[bytes, bytes]:
        """The directory and the last name of what a path leads to, through links."""
        os.fchdir(self._home)
        return os.path.split(os.path.realpath(path))

    def _is_directory(self, path: bytes) -> bool:
        try:
            found = self._open(path, True)
        except _ABSENT:
            return False
        try:
            return stat.S_ISDIR(os.fstat(found).st_mode)
        finally:
            os.close(found)
