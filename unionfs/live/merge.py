"""Finding one name through a stack of layers, as the kernel's overlayfs does.

The rules are those of ovl_lookup() and ovl_lookup_single() in fs/overlayfs/namei.c.

The topmost layer that has the name decides. A directory merges with those of the same name below it until a
non-directory, a whiteout or an opaque mark stops it; a redirect changes the name under which the layers below
are asked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from unionfs.live.layerdir import LayerDir, OpenDirectories
from unionfs.whiteout import Whiteout


class Found(NamedTuple):
    """What a name is. For a directory `layers` are all that merge, `status` is the topmost one's."""

    status: os.stat_result
    place: LayerDir  # the directory of a layer that holds the name
    layers: list[LayerDir]


def find(roots: Sequence[LayerDir], stack: Sequence[LayerDir], name: bytes, pool: OpenDirectories) -> Found | None:
    """Look `name` up in the merged directory `stack`, topmost layer first. One layer costs one stat."""
    if len(stack) == 1 and stack[0].layer == len(roots) - 1:  # nothing below to hide or to merge with
        return _single(stack[0], name, pool)
    return _Search(roots, stack, name, pool).run()


def _single(place: LayerDir, name: bytes, pool: OpenDirectories) -> Found | None:
    answer = place.probe(pool, name)
    if not isinstance(answer, os.stat_result):
        return None
    layers = [below(place, name, answer, pool)] if stat.S_ISDIR(answer.st_mode) else []
    return Found(answer, place, layers)


def below(place: LayerDir, name: bytes, status: os.stat_result, pool: OpenDirectories) -> LayerDir:
    """A directory of that status in one of the same layer."""
    child = LayerDir(place.layer, place, name)
    child.skips = pool.skipped(status)
    child.device = status.st_dev
    child.mounted = place.mounted
    if child.device != place.device or name in pool.file_systems.mount_points:
        pool.cross(place, child)
    return child


class _Search:
    """The kernel's ``struct ovl_lookup_data``: what is known while a name is looked up layer by layer."""

    def __init__(
        self, roots: Sequence[LayerDir], stack: Sequence[LayerDir], name: bytes, pool: OpenDirectories
    ) -> None:
        self.roots = roots
        self.bases = list(stack)  # the directories of layers that are still to be asked
        self.trail = [name]  # the way from there: more than one name only after an absolute redirect
        self.pool = pool
        self.stop = False
        self.first: tuple[os.stat_result, LayerDir] | None = None
        self.layers: list[LayerDir] = []

    def run(self) -> Found | None:
        while self.bases and not self.stop:
            base = self.bases.pop(0)
            self._ask(base)
        if self.first is None:
            return None
        return Found(*self.first, self.layers)

    def _ask(self, base: LayerDir) -> None:
        """Walk the trail in one layer. A redirect found on the way holds for the layers below only."""
        steps, self.trail = self.trail, []
        lowest = base.layer == len(self.roots) - 1
        for position, name in enumerate(steps):
            rest = steps[position + 1 :]
            answer = base.probe(self.pool, name)
            if answer is None:
                self.stop = bool(self.bases) and base.marked(self.pool, name)
                self.trail += steps[position:]
                return
            if isinstance(answer, Whiteout):
                self.stop = True
                return
            if not stat.S_ISDIR(answer.st_mode):
                self.stop = True
                if self.first is None and not rest:
                    self.first = (answer, base)
                return
            child = below(base, name, answer, self.pool)
            self.trail.append(name)
            if not rest:
                self._merge(answer, base, child)
            if not lowest:
                self._marks(base, child, name)
            base = child

    def _merge(self, status: os.stat_result, base: LayerDir, child: LayerDir) -> None:
        if self.first is None:
            self.first = (status, base)
        self.layers.append(child)

    def _marks(self, base: LayerDir, child: LayerDir, name: bytes) -> None:
        """What a directory of one layer says of the layers below it: nothing, stop, or go elsewhere."""
        redirect = child.marks(self.pool).redirect
        if redirect is None and not self.bases:
            return  # nothing below has it, and it was not moved here from elsewhere
        if child.opaque(self.pool) or base.marked(self.pool, name):
            self.stop = True
            return
        if redirect is None:
            return
        names = _parse(redirect)
        if redirect.startswith(b"/"):
            # An ancestor's opaque mark does not hold for what was moved here from elsewhere.
            self.stop = False
            self.trail = names
            self.bases = [root for root in self.roots if root.layer > base.layer]
        else:
            self.trail[-1:] = names


def _parse(redirect: bytes) -> list[bytes]:
    """The names in a redirect. Raises EINVAL for what could leave the layer or is no redirect at all."""
    names = redirect[1:].split(b"/") if redirect.startswith(b"/") else [redirect]
    if any(name in (b"", b".", b"..") or b"/" in name or b"\0" in name for name in names):
        raise OSError(errno.EINVAL, "overlay.redirect is neither an absolute path nor a name")
    return names
