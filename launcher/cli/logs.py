"""`ufs logs`: what a container has said."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

import click

from launcher.cli import filters
from launcher.container import catalogue, control, lock, logreading, spool
from launcher.container import logs as logwriting
from launcher.container.catalogue import Container
from launcher.errors import UfsError
from launcher.image.store import Store
from launcher.sandbox import syscalls
from launcher.sandbox.protocol import Channel, PeerGone


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the container ends.")
@click.option("--since", metavar="TIME", help="From then on: 2026-11-25T13:00:00Z, or 10m for ten minutes ago.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option("-n", "--tail", default="all", metavar="N", help="The last N lines only.")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line.")
@click.argument("container", metavar="CONTAINER")
def logs(follow: bool, since: str | None, until: str | None, tail: str, timestamps: bool, container: str) -> None:
    """Print what a container has said, each stream on its own."""
    found = catalogue.find(Store().root, container)
    if found.config.log.driver == "none":
        raise UfsError(f"container {found.name} was made with --log-driver none: nothing of its output was recorded")
    shown = _Shown(timestamps, _stamp("--since", since), _stamp("--until", until))
    reader = logreading.Reader(found.directory)
    channel = control.connect(found.directory) if follow else None
    watch = syscalls.watch(found.directory) if channel is not None else -1
    if control.ask(found.directory, "flush", "done") is None:
        _recover(found)
    try:
        reader.begin(_count(tail))
        shown.blocks(reader)
        if channel is not None:
            _follow(reader, shown, watch, channel)
    finally:
        reader.close()
        if channel is not None:
            channel.close()
            os.close(watch)


def _recover(container: Container) -> None:
    """Make lines of what supervisor and server left that were killed at once."""
    if not spool.left(container.directory):
        return
    held = lock.take(container.directory)
    if held is not None:
        logwriting.Writer(container.directory, container.config.log).recover()
        lock.release(held)


def _follow(reader: logreading.Reader, shown: _Shown, watch: int, channel: Channel) -> None:
    """Show more whenever something changes in the container's directory, until its supervisor says that it ended."""
    with suppress(PeerGone):  # it has just ended, and its end is the answer
        channel.send("wait")
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    poll.register(channel, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if watch in ready:
            os.read(watch, 1 << 16)
        shown.blocks(reader)
        if channel.fileno() in ready or shown.over:
            return


class _Shown:
    """Where records go, and which."""

    def __init__(self, timestamps: bool, since: bytes, until: bytes) -> None:
        self._timestamps = timestamps
        self._since = since
        self._until = until
        self._within: dict[bytes, bool] = {}
        self.over = False
        """Whether everything that is still to come is later than what is wanted."""

    def blocks(self, reader: logreading.Reader) -> None:
        """Show all that can be read now."""
        for block in reader.blocks():
            simple = not (self._timestamps or self._since or self._until or any(self._within.values()))
            text = logreading.plain(block) if simple else None
            if text is not None:
                _write(1, text)
            else:
                self._records(block)

    def _records(self, block: bytes) -> None:
        for line in block.splitlines():
            record = logreading.parse(line)
            if record is None or record.stamp < self._since:
                continue
            if self._until and record.stamp > self._until:
                self.over = True
                return
            begins = not self._within.get(record.stream)
            self._within[record.stream] = not record.whole
            stamp = record.stamp + b" " if self._timestamps and begins else b""
            _write(1 if record.stream == b"stdout" else 2, stamp + record.text)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _stamp(option: str, text: str | None) -> bytes:
    """A time as the log has it."""
    if not text:
        return b""
    seconds = filters.moment(f"{option} {text!r}", text)
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)).encode() + b".%09dZ" % int((seconds - whole) * 10**9)


def _count(text: str) -> int | None:
    if text == "all" or text.startswith("-"):
        return None
    if not text.isdecimal() or not text.isascii():
        raise UfsError(f"--tail {text!r}: give a number of lines, or all")
    return int(text)
