"""A model of how layers become one tree that shares nothing with the compiler: a dictionary of whole paths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.unionfs.compiled_image_support import Item, directory, hardlink, regular, symlink

Key = tuple[str, ...]


class Tree(dict[Key, "Thing"]):
    """Whole paths. `replaced`: a directory took the place of something else, which umoci before 0.5 refuses."""

    replaced = False


@dataclass(eq=False)
class Thing:
    """An inode; identity is what hard links share."""

    kind: str  # "dir", "file" or "symlink"
    mode: int
    content: str = ""  # or target


class Refused(Exception):
    """A LayerError is due."""


@dataclass
class Op:
    """What one member says. `number` makes content and mode of each differ."""

    verb: str
    path: Key
    target: Key = ()
    link: str = ""
    number: int = 0

    def member(self) -> Item:
        name = "/".join(self.path)
        if self.verb == "file":
            return regular(name, f"{self.number}".encode(), mode=self.number & 0o777)
        if self.verb == "dir":
            return directory(name, mode=self.number & 0o777)
        if self.verb == "symlink":
            return symlink(name, self.link)
        if self.verb == "link":
            return hardlink(name, "/".join(self.target))
        if self.verb == "opaque":
            return regular(f"{name}/.wh..wh..opq")
        return regular("/".join([*self.path[:-1], f".wh.{self.path[-1]}"]))


def merged(layers: Iterable[Iterable[Op]]) -> Tree:
    """The tree that the layers make, without the root."""
    tree = Tree()
    for layer in layers:
        own: set[Key] = set()
        for op in layer:
            if op.verb == "opaque":
                _hide(tree, own, resolve(tree, op.path), itself=False)
            elif op.verb == "whiteout":
                _hide(tree, own, (*resolve(tree, op.path[:-1]), op.path[-1]), itself=True)
            else:
                _put(tree, own, op)
    return tree


def resolve(tree: Tree, path: Key) -> Key:
    """Where `path` leads, all of its symbolic links followed."""
    at: Key = ()
    rest = path
    followed = 0
    while rest:
        name, rest = rest[0], rest[1:]
        if name in ("", "."):
            continue
        if name == "..":
            at = at[:-1]
            continue
        thing = tree.get((*at, name))
        if thing is None or thing.kind != "symlink":
            at = (*at, name)
            continue
        followed += 1
        if followed > 40:
            raise Refused
        at = () if thing.content.startswith("/") else at
        rest = (*thing.content.split("/"), *rest)
    return at


def _put(tree: Tree, own: set[Key], op: Op) -> None:
    for length in range(1, len(op.path)):
        _clear(tree, own, (*resolve(tree, op.path[: length - 1]), op.path[length - 1]))
    parent = resolve(tree, op.path[:-1])
    for length in range(1, len(parent) + 1):
        if tree.setdefault(parent[:length], Thing("dir", 0o755)).kind != "dir":
            tree[parent[:length]] = Thing("dir", 0o755)
            tree.replaced = True
    path = (*parent, op.path[-1])
    own.update(path[:length] for length in range(1, len(path) + 1))
    if op.verb == "link":
        linked = tree.get((*resolve(tree, op.target[:-1]), op.target[-1]))
        if op.target == op.path and path not in tree:
            return
        if linked is None or (linked.kind == "dir" and linked is not tree.get(path)):
            raise Refused
        new = linked
    elif op.verb == "symlink":
        new = Thing("symlink", 0o777, op.link)
    else:
        new = Thing(op.verb, op.number & 0o777, "" if op.verb == "dir" else f"{op.number}")
    old = tree.get(path)
    if old is not None and not old.kind == new.kind == "dir":
        _remove(tree, path)
    tree[path] = new


def _clear(tree: Tree, own: set[Key], path: Key) -> None:
    """A symbolic link of a lower layer that leads to no directory becomes one."""
    thing = tree.get(path)
    if thing is None or thing.kind != "symlink" or path in own:
        return
    try:
        target = resolve(tree, path)
        leads = not target or (target in tree and tree[target].kind == "dir")
    except Refused:
        leads = False
    if not leads:
        tree[path] = Thing("dir", 0o755)
        tree.replaced = True


def _hide(tree: Tree, own: set[Key], path: Key, itself: bool) -> None:
    for other in list(tree):
        if other[: len(path)] == path and other not in own and (itself or other != path):
            del tree[other]


def _remove(tree: Tree, path: Key) -> None:
    for other in [other for other in tree if other[: len(path)] == path]:
        del tree[other]
