"""Finding a directory in the merged tree of an image, symbolic links followed.

As `securejoin.SecureJoin` of the Go container tools (umoci, docker; containerd's fs.RootPath is alike) does it:
an absolute target begins at the root of the image, `..` stops there, and a `..` takes back the name before it even
where that name is not there or is no directory. The difference to these tools is that there is no race and no
host: the tree is the compiler's own.
"""

from __future__ import annotations

from unionfs.image.inodes import Inodes

Path = list[bytes]

MAX_LINKS = 40
"""Symbolic links followed on one way, as MAXSYMLINKS of the kernel (include/linux/namei.h)."""


class WalkError(ValueError):
    """Why a member cannot be applied: the reason of a LayerError."""


class Walk:
    """The way from `root` along `path`: what stands at each step, a step for each name that counted.

    `inodes` and `names` are of equal length and begin with the root; an inode of 0 is not there. What is on the
    way may also be no directory, with nothing below it: the caller decides what that means.
    """

    __slots__ = ("_links", "_tree", "inodes", "names")

    def __init__(self, inodes: Inodes, root: int, path: Path) -> None:
        self.inodes = [root]
        self.names = [b""]
        self._tree = inodes
        self._links = 0
        self.follow(path)

    def copy(self) -> Walk:
        """Another one that is as far."""
        made = Walk(self._tree, self.inodes[0], [])
        made.inodes[1:], made.names[1:], made._links = self.inodes[1:], self.names[1:], self._links
        return made

    def follow(self, path: Path) -> Walk:
        """Go on along `path`; WalkError for a loop of symbolic links. Returns itself."""
        children, targets = self._tree.children, self._tree.targets
        todo = path[::-1]
        while todo:
            name = todo.pop()
            if name == b"..":
                if len(self.inodes) > 1:
                    self.inodes.pop()
                    self.names.pop()
                continue
            inode = children.get(self.inodes[-1], _NOTHING).get(name, 0)
            target = targets.get(inode)
            if target is None:
                self.inodes.append(inode)
                self.names.append(name)
                continue
            self._links += 1
            if self._links > MAX_LINKS:
                raise WalkError(f"more than {MAX_LINKS} symbolic links on the way, or a loop of them")
            if target.startswith(b"/"):
                del self.inodes[1:], self.names[1:]
            todo += reversed(_parts_of_target(target))
        return self

    @property
    def inode(self) -> int:
        """What stands at the end, 0 for nothing."""
        return self.inodes[-1]


_NOTHING: dict[bytes, int] = {}


def split(path: bytes) -> Path:
    """The parts of a path that say something."""
    return [part for part in path.split(b"/") if part and part != b"."]


def _parts_of_target(target: bytes) -> Path:
    parts = split(target)
    if any(len(part) > 255 for part in parts):
        raise WalkError("a symbolic link on the way has a component of more than 255 bytes")
    return parts
