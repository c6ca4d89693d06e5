"""What never changes anything: lookup, attributes, listings, links' targets, data, statfs."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
from collections.abc import Iterator

from unionfs import copying, syscalls, whiteout
from unionfs.fuse import wire
from unionfs.mountflags import NODIRATIME, RELATIME, STRICTATIME
from unionfs.nodes import WHITEOUT, Directory
from unionfs.tree import BOUNDLESS, DOT, DOTDOT, ROOT, Entry, Run
from unionfs.union.core import NAME_MAX, Core, error

_SIZE = 8  # of size in struct fuse_attr


class Reading(Core):
    """The read side of the union."""

    def lookup(self, parent: int, name: bytes) -> bytes | memoryview:
        """``struct fuse_entry_out`` of a name; node id 0 in it says that there is none."""
        if parent not in self.nodes and self.owners.exact:
            ready = self.tree.entry(parent, name)
            if ready is None:
                if len(name) > NAME_MAX:
                    raise error(errno.ENAMETOOLONG, name)
                return self.negative
            id = int.from_bytes(ready[:8], "little")
            if id not in self.nodes and not (
                self.links and int.from_bytes(ready[wire.ENTRY_INO], "little") in self.links
            ):
                return ready
            self.uncount(id, None)
        id, node = self.child(parent, name)
        if not id:
            return self.negative
        if node is None:
            make = self.valid.entry_once if self.tree.boundless(id) else self.valid.entry
            return make(id, self.attr(id))
        attr = self.node_attr(node)
        node.lookups += 1
        return self.valid.entry(id, attr)

    def getattr(self, id: int) -> bytes | memoryview:
        """``struct fuse_attr`` of a node."""
        return self.attr(id)

    def boundless(self, id: int) -> bool:
        """Whether a node is the tree's and its st_size says nothing; see `Tree.boundless`."""
        return id not in self.nodes and self.tree.boundless(id)

    def boundless_attr(self, id: int, reading: bool) -> bytes:
        """``struct fuse_attr`` of such a file: with the host's st_size for stat(2), with `BOUNDLESS` for a read.

        The kernel asks for nothing behind the size that it knows, and cuts that where a READ gives less. It asks for
        the size first where a read goes beyond it, and drops its pages when it has changed: so each read is new.
        """
        attr = bytes(self.attr(id))
        return attr[:_SIZE] + struct.pack("<Q", BOUNDLESS) + attr[_SIZE + 8 :] if reading else attr

    def readlink(self, id: int) -> bytes:
        """The target of a symbolic link."""
        node = self.nodes.get(id)
        if node is None or node.lower:
            return self.tree.readlink(id)
        if node.override is not None:
            fd = self.upper.readable(node)
            return os.pread(fd, os.fstat(fd).st_size, 0)
        if node.where is None and node.fd >= 0:
            return os.readlink(b"", dir_fd=node.fd)  # An O_PATH descriptor of the link itself (readlinkat(2)).
        name, place, _ = self.upper.place(node)
        assert isinstance(name, bytes), "only data has a descriptor of its own"
        return os.readlink(name, dir_fd=place)

    def locate(self, id: int, offset: int, size: int, quiet: bool = False) -> Run:
        """Where bytes of a regular file are; see `Tree.locate`. The descriptor is borrowed.

        `quiet`: reading them is to leave no trace in st_atime, which reading from the tree never does.
        """
        node = self.nodes.get(id)
        if node is None or node.lower:
            return self.tree.locate(id, offset, size)
        return Run(self.upper.quiet(node) if quiet else self.upper.readable(node), offset, size)

    def keeps_promises(self, id: int) -> bool:
        """Whether a run of a file that is shorter than `locate` says is a damaged layer rather than the end."""
        node = self.nodes.get(id)
        return self.tree.stable and (node is None or node.lower)

    def read(self, id: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes of a regular file; see `read_into`."""
        data = bytearray(size)
        with memoryview(data) as view:
            length = self.read_into(id, offset, view)
        del data[length:]
        return bytes(data)

    def read_into(self, id: int, offset: int, into: memoryview, quiet: bool = False) -> int:
        """Fill `into` with bytes of a regular file; says how many, less only at its end.

        EIO where a layer has not what its image says.
        """
        done, size = 0, len(into)
        while done < size:
            fd, start, length = self.locate(id, offset + done, size - done, quiet)
            piece = into if length == size else into[done : done + length]
            if fd >= 0:
                count = os.preadv(fd, (piece,), start)
            else:
                piece[:] = bytes(length)
                count = length
            if count < length and self.keeps_promises(id):
                raise copying.ended_early()
            done += count
            # What cannot be read may lie behind whole pages that can: only reading on tells that from the end. Files of
            # proc give a page at most each time.
            ends = count < length and (offset + done) % mmap.PAGESIZE and not self.boundless(id)
            if not count or ends:
                break
        return done

    def lseek(self, id: int, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE; the kernel does the others by itself."""
        node = self.nodes.get(id)
        if node is not None and not node.lower:
            return os.lseek(self.upper.readable(node), offset, whence)
        return self.tree.seek(id, offset, whence)

    def get_flags(self, id: int) -> int:
        """What FS_IOC_GETFLAGS says (ioctl_iflags(2)): of the upper's file; 0 for the tree's and for special files."""
        node = self.nodes.get(id)
        if node is None or node.lower:
            return 0
        kind = stat.S_IFMT(self.upper.stat(node).st_mode)
        if kind == stat.S_IFREG:
            return syscalls.get_flags(self.upper.readable(node))
        if kind != stat.S_IFDIR:
            return 0
        fd = os.open(self.upper.path(node)[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return syscalls.get_flags(fd)
        finally:
            os.close(fd)

    def set_flags(self, id: int, flags: int) -> None:
        """FS_IOC_SETFLAGS: EOPNOTSUPP for any change. An immutable file could not be copied up, moved or removed."""
        if flags != self.get_flags(id):
            raise error(errno.EOPNOTSUPP)

    def statfs(self) -> os.statvfs_result:
        """What statfs(2) shows: the upper's file system, or the tree's."""
        if self.upper_or_none is None:
            return self.tree.statvfs()
        return os.fstatvfs(self.upper_or_none.root)

    # Listing.

    def listing(self, id: int, cookie: int, size: int) -> bytes | memoryview:
        """A READDIRPLUS reply of at most `size` bytes, from after `cookie` on; each entry counts as a lookup."""
        if self.owners.exact and self._as_in_the_tree(id):
            ready = self.tree.listing(id, cookie, size)
            if ready is not None:
                return ready
        records: list[bytes] = []
        for name, after in self.entries(id, cookie):
            length = wire.ENTRY_SIZE + wire.DIRENT.size + len(name) + (-len(name) % 8)
            if length > size:
                break
            record = self._record(id, name, after)
            if record:
                records.append(record)
                size -= length
        return b"".join(records)

    def _as_in_the_tree(self, directory: int) -> bool:
        """Whether a directory shows what the tree says of it and nothing else, attributes of hard links included."""
        if directory in self.nodes:
            return False
        return directory not in self.unready if self.tree.stable else not (self.links or self.spread)

    def _record(self, id: int, name: bytes, after: int) -> bytes:
        if name in (b".", b".."):
            return wire.direntplus(bytes(wire.ENTRY_SIZE), self._dot_ino(id, name), after, stat.S_IFDIR >> 12, name)
        try:
            entry = self.lookup(id, name)
        except OSError as failure:
            found = self._insistently(id, name) if failure.errno == errno.EACCES else None
            if found is None:
                return wire.unknown_direntplus(after, whiteout.shown(name))
            entry = found
        if entry[:8] == bytes(8):
            return b""
        ino = int.from_bytes(entry[wire.ENTRY_INO], "little")
        type_ = int.from_bytes(entry[wire.ENTRY_MODE], "little") >> 12
        return wire.direntplus(bytes(entry), ino, after, type_, whiteout.shown(name))

    def _insistently(self, id: int, name: bytes) -> bytes | memoryview | None:
        """The entry of something of the upper, whose other name may lie where this server is shut out."""
        node = self.nodes.get(id)
        if not isinstance(node, Directory) or name not in self.names(node):
            return None
        try:
            return self.insist(lambda: self.lookup(id, name))
        except OSError:
            return None

    def _dot_ino(self, id: int, name: bytes) -> int:
        node = self.nodes.get(id)
        if name == b"..":
            if node is not None and node.where is not None:
                return node.where[0].ino
            names = self.tree.names(id) if node is None else []
            id = names[0][0] if names else id
            node = self.nodes.get(id)
        return node.ino if node is not None else self.tree_ino(id)

    def entries(self, id: int, cookie: int) -> Iterator[tuple[bytes, int]]:
        """(name, cookie) of all that shows in a directory after `cookie`; "." and ".." first."""
        if cookie == 0:
            self._note_listing(id)
            yield b".", DOT
        if cookie < DOTDOT and not cookie & 1:
            yield b"..", DOTDOT
        yield from self._names_after(id, cookie)

    def _names_after(self, id: int, cookie: int) -> Iterator[tuple[bytes, int]]:
        """What only the upper has (odd cookies) comes first, the newest before the others: see `Arrivals`.

        What the tree has follows. It keeps the tree's cookie whoever answers for it, so promoting an entry while a
        listing is under way neither repeats nor skips it.
        """
        node = self.nodes.get(id)
        if node is None:
            yield from ((entry.name, entry.cookie) for entry in self.tree.entries(id, cookie))
            return
        if not isinstance(node, Directory) or (node.removed and node.id != ROOT):
            return  # A removed directory has no entries, not even for who still has it open.
        names = self.names(node)
        if self.valid.finite and not cookie and node.lower_dir:
            node.compare({entry.name for entry in self.tree.entries(node.lower_dir)})
        among_extras = bool(cookie & 1)
        in_tree: Iterator[Entry] = iter(())
        if node.lower_dir:  # asked before anything is listed: with 0 a live directory is read anew
            in_tree = self.tree.entries(node.lower_dir, DOTDOT if among_extras else cookie)
        if among_extras or cookie <= DOTDOT:
            yield from node.extras(cookie if among_extras else 0)
        for entry in in_tree:
            if names.get(entry.name) != WHITEOUT:
                yield entry.name, entry.cookie

    def _note_listing(self, id: int) -> None:
        """A disk moves the access time of a directory then: kept where it is asked for."""
        access, node = self.features.access, self.nodes.get(id)
        if not access & (STRICTATIME | RELATIME) or access & NODIRATIME or not isinstance(node, Directory):
            return
        if node.where is not None or node.id == ROOT:
            self.upper.note_listing(node)

    def is_empty(self, id: int) -> bool:
        """Whether a directory shows no entries."""
        if id not in self.nodes:
            return not self.tree.has_entries(id)
        return next(self._names_after(id, 0), None) is None
