"""What one container is to be: everything its processes need to know, fixed before the first fork."""

from __future__ import annotations

from typing import NamedTuple

from launcher.sandbox.idmap import IdMap


class Volume(NamedTuple):
    """What is mounted at `target` (absolute) in the container.

    `kind`: "bind", `source` of the host (absolute); "volume", the one of the store called `name`, whose content is in
    the directory `source`; "tmpfs", an empty file system that goes with the container. `options` are words: noexec,
    nosuid, nodev and rslave of mount(8), nocopy of a volume that is not to be filled, U where all files become the
    command's user's, KEY=VALUE of tmpfs(5).
    """

    source: str
    target: str
    read_only: bool
    kind: str = "bind"
    name: str = ""
    anonymous: bool = False
    options: tuple[str, ...] = ()


class Spec(NamedTuple):
    """One container. It travels by fork, never over a socket or through a file."""

    id: str
    directory: str  # containers/<id>, absolute
    argv: list[str]
    environment: dict[str, str]
    working_directory: str
    user: str  # as in an image's User: name, uid, uid:gid, name:group; "" is root
    hostname: str
    volumes: list[Volume]
    directories: list[str]  # absolute; made where the image lacks them
    ids: IdMap
    capabilities: frozenset[int]
    new_privileges: bool  # set-user-id programs and capabilities of files count
    low_ports: bool  # this process binds them for the container
    nested: bool  # containers can be run inside
    engine: str
    read_only: bool
    interactive: bool
    terminal: bool
    terminal_size: bytes  # struct winsize for the container's terminal, b"" where the caller has none
    init: bool
    remove: bool
    streams: tuple[int, int, int]  # descriptors that become 0, 1 and 2 where it has no terminal; -1: /dev/null

    @property
    def upper(self) -> str:
        """The container's layer."""
        return self.directory + "/upper"

    @property
    def work(self) -> str:
        """Temporaries of the union, on the file system of `upper`."""
        return self.directory + "/work"
