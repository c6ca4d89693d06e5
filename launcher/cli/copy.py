"""`ufs cp`: files between the host, containers and images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from launcher.cli import output
from launcher.container import catalogue
from launcher.errors import UfsError
from launcher.image.store import Store
from launcher.sandbox.protocol import PeerGone

if TYPE_CHECKING:
    from launcher.container.catalogue import Container
    from launcher.image.resolve import HostImage, StoredImage
    from launcher.sandbox.idmap import IdMap
    from launcher.sandbox.protocol import Channel, Message

_STREAM = "-"


class _End(NamedTuple):
    """One end of a copy: `owner` None is the host, whose path may be ``-``."""

    owner: Container | StoredImage | HostImage | None
    path: str

    @property
    def shown(self) -> str:
        return self.path if self.owner is None else f"{self.owner.name}:{self.path}"


@click.command(
    "cp",
    epilog="""\b
Examples:
  ufs cp web:/etc/nginx/nginx.conf .
  ufs cp site/. web:/srv/www          what is in site, into /srv/www
  ufs cp web:/var/log - | tar t       as a tar archive
  ufs cp alpine:3.19:/etc/os-release .  out of an image
""",
)
@click.option("-a", "--archive", is_flag=True, help="Keep owners: those of the container's id map.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link at SOURCE leads to.")
@click.option("-q", "--quiet", "_", is_flag=True, help="As always: nothing is said that is not wrong.")
@click.argument("source", metavar="[CONTAINER:|IMAGE:]SOURCE")
@click.argument("destination", metavar="[CONTAINER:]DESTINATION")
def cp(archive: bool, follow_link: bool, _: bool, source: str, destination: str) -> None:
    """Copy files between the host and a container, whether it runs or not, or out of an image.

    A directory is copied with all that is in it: into DESTINATION where that is a directory, else as DESTINATION; with
    SOURCE/. what is in it alone. "-" is a tar archive on standard input or output. Modes, times, extended attributes,
    links and holes are kept. Links are followed in the container alone.
    """
    store = Store()
    came, to = _end(store, source), _end(store, destination)
    _check(came, to)
    ids = _ids(came, to) if archive else None
    with ExitStack() as stack:
        if came.owner is None and came.path == _STREAM:
            _extract(stack.enter_context(_place(store, to, ids)), to, archive)
            return
        sender = stack.enter_context(_place(store, came, ids))
        found = _look(sender, came, follow_link)
        if found in ("missing", "nowhere"):
            raise UfsError(f"{came.shown}: no such file or directory")
        if to.owner is None and to.path == _STREAM:
            name = _base(came.path) if found != "directory" or _base(came.path) else "."
            fields: dict[str, Any] = {"path": came.path, "follow": _follows(came, follow_link), "name": name}
            _ask(sender, "send", "sent", (1,), **fields)
            return
        taker = stack.enter_context(_place(store, to, ids))
        _copy(sender, taker, came, to, found, follow_link, archive)


def _end(store: Store, text: str) -> _End:
    """What an argument means: with a slash or dot first, or without a colon, a path of the host.

    But for what is only there when the part before the colon is taken for the archive of an image.
    """
    if text.startswith(("/", ".")) or ":" not in text:
        archive = text.partition(":/")[0]
        is_image = archive != text and not os.path.lexists(text) and os.path.exists(archive)
        return (is_image and _image(store, text)) or _End(None, text)
    name, _, path = text.partition(":")
    try:
        found = catalogue.find(store.root, name)
    except UfsError as error:
        image = _image(store, text)
        if image is None:
            raise UfsError(f"{error}; a path of the host that has a colon begins with ./") from None
        return image
    if not path:
        raise UfsError(f"{text}: say which file: {name}:/PATH")
    return _End(found, "/" + path.lstrip("/"))


def _image(store: Store, text: str) -> _End | None:
    from launcher.cli.inside import split
    from launcher.image.resolve import NoImage, resolve

    name, path = split(text)
    if name == text:
        return None
    try:
        return _End(resolve(name, store), path)
    except NoImage:
        return None


def _check(came: _End, to: _End) -> None:
    from launcher.container.catalogue import Container

    if came.owner is None and to.owner is None:
        raise UfsError("neither of the two is in a container or image; write CONTAINER:/PATH for one that is")
    if to.owner is not None and not isinstance(to.owner, Container):
        raise UfsError(f"{to.shown} is in an image, and images do not change; copy into a container and ufs commit it")
    if isinstance(came.owner, Container) and to.owner is not None and came.owner.id == to.owner.id:
        raise UfsError(f"both are in container {to.owner.name}: ufs exec {to.owner.name} cp does that")
    if to.path == _STREAM and os.isatty(1):
        raise UfsError("standard output is a terminal; an archive goes to a file or a program: ... - > FILE.tar")
    if not came.path or not to.path:
        raise UfsError("an empty path means nothing; . is the current directory")


def _ids(came: _End, to: _End) -> IdMap:
    """Those that owners are to be read or written by."""
    from launcher.container.catalogue import Container
    from launcher.sandbox import idmap

    for end in (to, came):
        if isinstance(end.owner, Container):
            return end.owner.config.ids
    return idmap.choose().map


@contextmanager
def _place(store: Store, end: _End, ids: IdMap | None) -> Iterator[Channel]:
    from launcher.container.catalogue import Container
    from launcher.transfer import places

    if end.owner is None:
        place = places.on_host(ids)
    elif isinstance(end.owner, Container):
        place = places.in_container(store, end.owner)
    else:
        place = places.in_image(end.owner)
    with place as channel:
        yield channel


def _look(channel: Channel, end: _End, follow: bool) -> str:
    return str(_ask(channel, "look", "seen", path=end.path, follow=_follows(end, follow)).fields["what"])


def _follows(end: _End, follow: bool) -> bool:
    """Whether what a link leads to is meant: a path that ends with a slash is one of a directory."""
    return follow or end.path.endswith(("/", "/.", "/..")) or end.path in (".", "..")


def _base(path: str) -> str:
    """The last name of a path; "" where it is of what is in a directory (``DIR/.``), or the root."""
    last = path.rstrip("/").rpartition("/")[2]
    return "" if last in (".", "..") else last


def _copy(sender: Channel, taker: Channel, came: _End, to: _End, found: str, follow: bool, archive: bool) -> None:
    seen = _ask(taker, "look", "seen", path=to.path, follow=True).fields
    kind, into = seen["what"], seen["what"] == "directory"
    if kind == "nowhere":
        raise UfsError(f"{to.shown}: the directory that it is to be in does not exist")
    if kind == "missing" and found != "directory" and to.path.endswith("/"):
        raise UfsError(f"{to.shown}: there is no such directory")
    if kind == "other" and found == "directory":
        raise UfsError(f"{came.shown} is a directory and {to.shown} is none: it cannot be copied there")
    if kind == "special":
        raise UfsError(f"{to.shown} is neither a file nor a directory; - in its place is an archive on standard output")
    content = came.path.endswith("/.") or came.path == "."
    name = (_real_base(came, content) or ".") if into else seen["name"]
    fields = {"path": to.path, "into": into, "owners": archive, "label": came.shown}
    fields["trusted"] = archive or to.owner is not None
    fields["place"] = to.shown if into else os.path.dirname(to.shown)
    reading, writing = os.pipe()
    with suppress(PeerGone):
        sender.send("send", (writing,), path=came.path, follow=_follows(came, follow), name=name)
    with suppress(PeerGone):
        taker.send("take", (reading,), **fields)
    os.close(writing)
    os.close(reading)
    failure: UfsError | None = None
    try:
        _tell_left_out(_answer(taker, "taken"))
    except UfsError as error:
        failure = error
    _answer(sender, "sent")  # where both failed, this is why
    if failure is not None:
        raise failure


def _real_base(came: _End, content: bool) -> str:
    return "" if content else _base(came.path if came.owner is not None else os.path.abspath(came.path))


def _extract(taker: Channel, to: _End, archive: bool) -> None:
    kind = _ask(taker, "look", "seen", path=to.path, follow=True).fields["what"]
    if kind != "directory":
        reason = "is not a directory" if kind == "other" else "does not exist"
        raise UfsError(f"{to.shown} {reason}: an archive is unpacked in a directory")
    fields = {
        "path": to.path,
        "into": True,
        "owners": archive,
        "trusted": True,
        "label": "standard input",
        "place": to.shown,
    }
    _tell_left_out(_ask(taker, "take", "taken", (0,), **fields))


def _tell_left_out(message: Message) -> None:
    for name in message.fields["left_out"]:
        output.warn(f"{name} is a device and was left out: devices are not copied")


def _ask(channel: Channel, kind: str, answer: str, descriptors: tuple[int, ...] = (), **fields: object) -> Message:
    with suppress(PeerGone):  # it has ended, having said why
        channel.send(kind, descriptors, **fields)
    return _answer(channel, answer)


def _answer(channel: Channel, kind: str) -> Message:
    try:
        return channel.expect(kind)
    except UfsError as error:
        raise UfsError(str(error)) from error
