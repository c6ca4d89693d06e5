"""`ufs ls`, `ufs cat`, `ufs find`, `ufs layers`: an image from inside, without mounting it."""

from __future__ import annotations

import fnmatch
import json
import operator
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from launcher.cli import output
from launcher.cli.images import ImageName
from launcher.errors import UfsError, printable
from launcher.image.resolve import StoredImage, resolve
from launcher.image.store import Store
from unionfs.fuse.wire import decode_rdev

if TYPE_CHECKING:
    from launcher.image.inside import Found, Inside
    from unionfs.image.stack import Stack

_COLOURS = {stat.S_IFDIR: "34", stat.S_IFLNK: "36", stat.S_IFIFO: "33", stat.S_IFSOCK: "35"}
_EXECUTABLE = "32"
_SIX_MONTHS = 182 * 86400  # as ls(1): older times show the year


def split(text: str) -> tuple[str, str]:
    """IMAGE[:PATH]: the path begins at the first ``:/``; without one it is the root."""
    image, colon, path = text.partition(":/")
    return (image, "/" + path) if colon else (text, "/")


@contextmanager
def opened(text: str) -> Iterator[tuple[Inside, bytes]]:
    """An image's inside and the path in it."""
    from launcher.image.inside import Inside

    name, path = split(text)
    tree = resolve(name, Store()).open_tree()
    try:
        yield Inside(tree, name), os.fsencode(path)
    finally:
        tree.close()


@click.command(
    epilog="""\b
Examples:
  ufs ls alpine
  ufs ls -l alpine:3.19:/etc
  ufs ls -lR --layer debian:/usr/share/doc
"""
)
@click.argument("place", metavar="IMAGE[:PATH]", type=ImageName())
@click.option("-l", "long", is_flag=True, help="Modes, owners, sizes and times, too.")
@click.option("-R", "--recursive", is_flag=True, help="All directories below, too.")
@click.option("-d", "--directory", is_flag=True, help="The directory itself instead of what is in it.")
@click.option("-a", "--all", "_", is_flag=True, help="As always: names that begin with a dot are shown.")
@click.option("--layer", "layered", is_flag=True, help="From which layer each comes.")
def ls(place: str, long: bool, recursive: bool, directory: bool, _: bool, layered: bool) -> None:
    """List what is in an image. PATH begins with a slash; links are followed within the image."""
    with opened(place) as (inside, path):
        stack = _stack(split(place)[0]) if layered else None
        top = inside.find(path, follow=not long and not directory)
        if directory or not stat.S_ISDIR(top.attr.mode):
            _print([top], inside, long, stack, whole=True)
            return
        todo = [top]
        first = True
        while todo:
            one = todo.pop()
            entries = inside.entries(one)
            if recursive:
                print(("" if first else "\n") + f"{_text(one.path)}:")
                todo += [below for below in reversed(entries) if stat.S_ISDIR(below.attr.mode)]
            _print(entries, inside, long, stack, whole=False)
            first = False


@click.command(
    epilog="""\b
Example:
  ufs cat alpine:/etc/os-release
"""
)
@click.argument("places", metavar="IMAGE:PATH...", nargs=-1, required=True, type=ImageName())
def cat(places: tuple[str, ...]) -> None:
    """Write files of images to standard output."""
    for place in places:
        if ":/" not in place:
            raise click.UsageError(f"{place}: say which file: IMAGE:/PATH")
        with opened(place) as (inside, path):
            for piece in inside.read(inside.find(path)):
                sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@click.command(
    epilog="""\b
Examples:
  ufs find alpine -name '*.so*'
  ufs find debian:/usr -type f -size +1M
  ufs find debian -perm -4000
"""
)
@click.argument("place", metavar="IMAGE[:PATH]", type=ImageName())
@click.option("-name", metavar="PATTERN", help="The last part fits a shell pattern.")
@click.option("-iname", metavar="PATTERN", help="The same, upper and lower case alike.")
@click.option("-path", "whole", metavar="PATTERN", help="The whole path fits a shell pattern.")
@click.option("-type", "kind", type=click.Choice(list("fdlpscb")), help="File, directory, link, ...")
@click.option("-size", metavar="[+-]N[ckMG]", help="Larger (+) or smaller (-) than, or exactly so many bytes, KiB, ...")
@click.option("-perm", metavar="[-]MODE", help="These permission bits (octal); with - at least these.")
@click.option("-uid", type=int, help="The owner's number.")
@click.option("-maxdepth", type=click.IntRange(0), help="At most so many directories deep.")
@click.option("-print0", is_flag=True, help="Names end with a zero byte.")
def find(
    place: str,
    name: str | None,
    iname: str | None,
    whole: str | None,
    kind: str | None,
    size: str | None,
    perm: str | None,
    uid: int | None,
    maxdepth: int | None,
    print0: bool,
) -> None:
    """Find names in an image, as find(1) does."""
    sized = _sized(size)
    bits = _permissions(perm)
    kinds = {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "p": stat.S_IFIFO, "s": stat.S_IFSOCK}
    kinds |= {"c": stat.S_IFCHR, "b": stat.S_IFBLK}

    def fits(found: Found) -> bool:
        last, mode = os.fsdecode(found.path.rpartition(b"/")[2]), found.attr.mode
        return (
            (name is None or fnmatch.fnmatchcase(last, name))
            and (iname is None or fnmatch.fnmatchcase(last.lower(), iname.lower()))
            and (whole is None or fnmatch.fnmatchcase(os.fsdecode(found.path), whole))
            and (kind is None or stat.S_IFMT(mode) == kinds[kind])
            and (uid is None or found.attr.uid == uid)
            and sized(found.attr.size)
            and bits(mode & 0o7777)
        )

    with opened(place) as (inside, path):
        for found in inside.walk(inside.find(path), maxdepth):
            if fits(found):
                if print0:
                    sys.stdout.buffer.write(found.path + b"\0")
                else:
                    print(_text(found.path))
    sys.stdout.flush()


@click.command(
    epilog="""\b
Examples:
  ufs layers alpine
  ufs layers --json debian
"""
)
@click.argument("image", type=ImageName())
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
def layers(image: str, as_json: bool) -> None:
    """Draw an image's stack as the union sees it, the topmost layer first.

    HIDDEN counts names that a layer takes away, WASTE the bytes of its files that layers above hide.
    """
    found = _image(image)
    stack = _stack_of(found)
    commands = _commands(found)
    rows = list(zip(found.config.diff_ids, stack.layers, commands, strict=True))
    if as_json:
        keys = ("diff_id", "added", "changed", "hidden", "bytes", "hidden_bytes", "created_by")
        found_rows = [dict(zip(keys, (digest, *facts, made), strict=True)) for digest, facts, made in rows]
        print(json.dumps(found_rows, indent=1))
        return
    most = max((facts.bytes for _, facts, _ in rows), default=0)
    bars = sys.stdout.isatty()
    table = []
    for digest, facts, made in reversed(rows):
        bar = ("█" * max(1, round(12 * facts.bytes / most)) if most and facts.bytes else "").ljust(12) + " "
        waste = output.size(facts.hidden_bytes) if facts.hidden_bytes else "-"
        counts = [str(count) for count in (facts.added, facts.changed, facts.hidden)]
        table.append([digest[:12], (bar if bars else "") + output.size(facts.bytes), *counts, waste, made])
    output.table(("LAYER", "SIZE", "ADDED", "CHANGED", "HIDDEN", "WASTE", "CREATED BY"), table)


def _image(name: str) -> StoredImage:
    found = resolve(name, Store())
    if not isinstance(found, StoredImage):
        raise UfsError("the host is no image: it has no layers")
    return found


def _stack(name: str) -> Stack:
    return _stack_of(_image(name))


def _stack_of(image: StoredImage) -> Stack:
    from unionfs.image.stack import Stack

    return Stack(image.layer_paths)


def _commands(image: StoredImage) -> list[str]:
    """What made each layer, by the steps of the history that made one."""
    steps = Store().history(image.id or "")
    made = [" ".join(step.created_by.split()) for step in steps if not step.empty_layer]
    count = len(image.config.diff_ids)
    return (made + [""] * count)[:count]


def _print(entries: list[Found], inside: Inside, long: bool, stack: Stack | None, whole: bool) -> None:
    rows = []
    for found in entries:
        name = _text(found.path if whole else found.path.rpartition(b"/")[2]) or "/"
        shown = _coloured(name, found.attr.mode)
        if long and stat.S_ISLNK(found.attr.mode):
            shown += f" -> {_text(inside.link(found))}"
        layer = [_layer(stack, found)] if stack is not None else []
        rows.append([*layer, *(_details(found) if long else []), shown])
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        fields = [field.rjust(width) for field, width in zip(row, widths, strict=False)]
        print(" ".join([*fields, row[-1]]))


def _details(found: Found) -> list[str]:
    attr = found.attr
    device = stat.S_ISCHR(attr.mode) or stat.S_ISBLK(attr.mode)
    major, minor = decode_rdev(attr.rdev)
    size = f"{major},{minor}" if device else str(attr.size)
    return [stat.filemode(attr.mode), str(attr.nlink), str(attr.uid), str(attr.gid), size, _time(attr.mtime)]


def _time(seconds: int) -> str:
    recent = abs(time.time() - seconds) < _SIX_MONTHS
    return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.localtime(seconds))


def _layer(stack: Stack | None, found: Found) -> str:
    number = stack.layer_of(found.path) if stack is not None else None
    return "-" if number is None else f"#{number}"


def _coloured(name: str, mode: int) -> str:
    colour = _COLOURS.get(stat.S_IFMT(mode)) or (_EXECUTABLE if stat.S_ISREG(mode) and mode & 0o111 else "")
    if not colour or not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return name
    return f"\x1b[{colour}m{name}\x1b[m"


def _text(path: bytes) -> str:
    return printable(os.fsdecode(path)) if sys.stdout.isatty() else os.fsdecode(path)


def _sized(text: str | None) -> Callable[[int], bool]:
    """find(1)'s -size, in exact bytes unless a unit says otherwise; files are rounded up to the unit, as there."""
    if text is None:
        return lambda size: True
    match = re.fullmatch(r"([+-]?)([0-9]+)([ckMG]?)", text, re.ASCII)
    if match is None:
        raise click.UsageError(f"-size {text}: this has to be [+-]N[ckMG], such as +10M")
    unit = {"": 1, "c": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[3]]
    wanted = int(match[2])
    compare = {"+": operator.gt, "-": operator.lt, "": operator.eq}[match[1]]
    return lambda size: bool(compare(-(-size // unit), wanted))


def _permissions(text: str | None) -> Callable[[int], bool]:
    """find(1)'s -perm, octal."""
    if text is None:
        return lambda mode: True
    match = re.fullmatch(r"(-?)([0-7]{1,4})", text, re.ASCII)
    if match is None:
        raise click.UsageError(f"-perm {text}: this has to be an octal mode, or one with - before it")
    wanted = int(match[2], 8)
    if match[1]:
        return lambda mode: mode & wanted == wanted
    return lambda mode: mode == wanted
