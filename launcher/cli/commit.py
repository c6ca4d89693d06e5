"""`ufs commit`, `ufs export`, `ufs import`: from a container, or a root as a tar archive, to an image and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from launcher.container import catalogue, control, state
from launcher.container.catalogue import Container
from launcher.errors import UfsError
from launcher.image.store import Store

if TYPE_CHECKING:
    from launcher.image.resolve import StoredImage
    from launcher.sandbox.protocol import Channel

_change = click.option(
    "-c", "--change", multiple=True, metavar="INSTRUCTION",
    help="Change what the image says, as a line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, "
    "STOPSIGNAL, USER, VOLUME, WORKDIR.",
)  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  ufs commit web web:fixed
  ufs commit -m "with curl" -c "CMD curl -V" -c "ENV A=1" web curl
""",
)
@click.option("-m", "--message", default="", help="A comment for the history.")
@click.option("-a", "--author", default="", help="Whose work it is.")
@_change
@click.option("-p", "--pause/--no-pause", default=False, help="Pause a running container meanwhile.")
@click.option("-q", "--quiet", "_", is_flag=True, help="As always: only the id is printed.")
@click.option("--iidfile", type=click.Path(), help="Write the image's id to this file, too.")
@click.argument("container", metavar="CONTAINER")
@click.argument("name", metavar="[NAME[:TAG]]", required=False)
def commit(
    message: str, author: str, change: tuple[str, ...], pause: bool, _: bool, iidfile: str | None, container: str,
    name: str | None,
) -> None:  # fmt: skip
    """Make an image of a container: its image with one more layer, which is what it changed. Prints the id.

    It says of running it what the container was made with. What is mounted in the container is no part of it.
    """
    from launcher.image import instructions, making
    from launcher.image.workspace import Workspace

    store = Store()
    found = catalogue.find(store.root, container)
    image, names = _image(store, found), making.checked_name(name)
    assert image.id is not None
    base, document = making.base_of(store, image.id)
    document["config"] = section = _section(document.get("config") or {}, found)
    instructions.apply(section, change)
    with Workspace(store) as workspace, _paused(found, pause):
        fd, path = workspace.temporary()
        try:
            _pack(store, found, image, fd)
        finally:
            os.close(fd)
        words = " ".join(found.config.argv)
        loaded = making.publish(workspace, path, document, making.Written(words, message, author), names, base)
    _tell(loaded.image, iidfile)


@click.command(
    epilog="""\b
Examples:
  ufs export web > web.tar
  ufs export -o web.tar web
""",
)
@click.option("-o", "--output", type=click.Path(), help="A file in place of standard output.")
@click.argument("container", metavar="CONTAINER")
def export(output: str | None, container: str) -> None:
    """Write a container's whole root as a tar archive, without what is mounted in it."""
    from launcher.transfer import places

    store = Store()
    found = catalogue.find(store.root, container)
    if output is None and os.isatty(1):
        raise UfsError("standard output is a terminal; an archive goes to a file: -o FILE")
    sys.stdout.flush()
    with _written(output) as fd, places.in_container(store, found, volumes=False) as channel:
        channel.send("whole", (fd,))
        try:
            channel.expect("sent")
        except UfsError as error:
            raise UfsError(str(error)) from error


@click.command(
    "import",
    epilog="""\b
Examples:
  ufs export web | ufs import - web:flat
  ufs import -c "CMD sh" rootfs.tar.xz debian:mine
""",
)
@click.option("-m", "--message", default="", help="A comment for the history.")
@_change
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("source", metavar="FILE|URL|-")
@click.argument("name", metavar="[NAME[:TAG]]", required=False)
def import_(message: str, change: tuple[str, ...], quiet: bool, source: str, name: str | None) -> None:
    """Make an image of one layer of a root file system as a tar archive, which may be compressed. Prints the id."""
    from launcher.cli.output import Progress
    from launcher.image import instructions, making
    from launcher.image.platforms import this_machine
    from launcher.image.workspace import Workspace
    from launcher.transfer import rootarchive

    names = making.checked_name(name)
    section: dict[str, Any] = {}
    instructions.apply(section, change)
    machine = this_machine()
    document: dict[str, Any] = {"architecture": machine.architecture, "os": machine.os, "config": section}
    if machine.variant:
        document["variant"] = machine.variant
    with Workspace(Store()) as workspace:
        path = rootarchive.fetch(source, workspace)
        written = making.Written("", message or f"Imported from {source}")
        with Progress(quiet) as progress:
            loaded = making.publish(workspace, path, document, written, names, progress=progress)
    _tell(loaded.image, None)


def _image(store: Store, container: Container) -> StoredImage:
    from launcher.image.resolve import StoredImage
    from launcher.supervisor.starting import image_of

    image = image_of(store, container)
    if not isinstance(image, StoredImage):
        raise UfsError(
            f"container {container.name} is on the host itself, which is no image to build on; ufs export it"
        )
    return image


def _section(section: dict[str, Any], container: Container) -> dict[str, Any]:
    """What the image says of running it, with what the container was made with in its place, as Docker has it."""
    made = container.config
    count = len(made.entrypoint)
    own = (("HOSTNAME", made.hostname), ("TERM", "xterm"))  # of this container, and of its terminal
    changed = {
        "Entrypoint": made.entrypoint,
        "Cmd": made.argv[count:],
        "Env": [f"{key}={value}" for key, value in made.environment.items() if (key, value) not in own],
        "User": made.user,
        "WorkingDir": made.working_directory,
        "Labels": made.labels,
        "StopSignal": made.stop_signal,
    }
    kept = {key: value for key, value in section.items() if key not in changed}
    return kept | {key: value for key, value in changed.items() if value}


@contextmanager
def _paused(container: Container, wanted: bool) -> Iterator[None]:
    if not wanted or not isinstance(container.observe(), state.Running):
        yield
        return
    paused = control.ask(container.directory, "pause", "done", ()) is not None
    try:
        yield
    finally:
        if paused:
            control.ask(container.directory, "unpause", "done", ())


def _pack(store: Store, container: Container, image: StoredImage, fd: int) -> None:
    """Write the layer: see `launcher.transfer.layer`."""
    from launcher.transfer import layer, places

    records = b"".join(_listed(container, image))
    tree = image.open_tree()
    single = container.config.ids.single

    def body(channel: Channel) -> int:
        def pack() -> None:
            layer.LayerPacker(fd, tree, single).pack(records)

        return _answer(channel, pack)

    try:
        with places.in_container(store, container, volumes=False, body=body) as channel:
            _expect_done(channel)
    finally:
        tree.close()


def _listed(container: Container, image: StoredImage) -> Iterator[bytes]:
    """The records of what changed, found by a process that may read the container's layer."""
    from launcher.cli.containers import preload
    from launcher.sandbox import namespaces

    made = container.config
    known = container.observe()
    created = [] if isinstance(known, state.Created | state.Dead) else known.created
    upper = f"{container.directory}/upper"
    reading, writing = os.pipe()

    def body(channel: Channel) -> int:
        from launcher.transfer.layer import listed

        def write() -> None:
            os.close(reading)
            if os.path.isdir(upper):
                with os.fdopen(writing, "wb") as stream:
                    stream.write(listed(upper, image.open_tree(), created, not made.ids.single))

        return _answer(channel, write)

    pid, channel = namespaces.fork_mapped(made.ids, "reader", body, meanwhile=preload)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            while piece := stream.read(1 << 20):
                yield piece
        _expect_done(channel)
    finally:
        channel.close()
        os.waitpid(pid, 0)


def _answer(channel: Channel, do: Callable[[], None]) -> int:
    try:
        do()
    except Exception as error:  # noqa: BLE001 the command tells it
        channel.give_up("cannot read the container's layer", error)
        return 1
    channel.send("done")
    return 0


def _expect_done(channel: Channel) -> None:
    try:
        channel.expect("done")
    except UfsError as error:
        raise UfsError(str(error)) from error


@contextmanager
def _written(path: str | None) -> Iterator[int]:
    """Standard output, or a file that is there when it is complete."""
    if path is None:
        yield 1
        return
    if os.path.exists(path) and not os.path.isfile(path):  # a device or a fifo is written to
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    try:
        yield fd
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _tell(image: str, path: str | None) -> None:
    if path is not None:
        with open(path, "w") as file:
            file.write(f"sha256:{image}")
    click.echo(f"sha256:{image}")
