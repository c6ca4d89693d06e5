"""An image made by buildah, layer by layer, as a container tool would."""

from __future__ import annotations

import os
from pathlib import Path

from tests.images import base, tools

LAYERS = 5
CONFIG = [
    "--entrypoint", '["/bin/echo", "entry"]', "--cmd", "argument", "--env", "MADE_BY=buildah",
    "--user", "somebody:extra", "--workingdir", "/work/dir", "--stop-signal", "SIGUSR1", "--label", "test=yes",
]  # fmt: skip


def build(into: Path) -> None:
    """The forms of `tools.convert_all`, tag buildah; Entrypoint, Cmd, Env, User and WorkingDir are set. Needs root."""
    state = into / "state"
    # chroot isolation and the vfs driver ask nothing of the machine but root.
    env = {"PATH": os.environ["PATH"] + ":/usr/sbin", "HOME": str(state), "BUILDAH_ISOLATION": "chroot"}
    storage = ["--root", str(state / "root"), "--runroot", str(state / "run"), "--storage-driver", "vfs"]

    def buildah(*argv: str | os.PathLike[str]) -> str:
        return tools.run("buildah", *storage, *argv, env=env).strip()

    rootfs = into / "rootfs"
    base.populate(rootfs)
    name = "scratch"
    for number in range(LAYERS):
        container = buildah("from", "--pull-never", name)
        if number == 0:
            buildah("add", "--quiet", container, rootfs, "/")
        else:
            change(buildah, container, number)
        if number == LAYERS - 1:
            buildah("config", *CONFIG, container)
        name = f"localhost/step{number}"
        buildah("commit", "--quiet", "--rm", container, name)
    layout = into / "buildah"
    buildah("push", "--quiet", name, f"oci:{layout}:buildah")
    tools.run("rm", "-rf", state, rootfs)
    tools.convert_all(layout, "buildah", into)


def change(buildah: object, container: str, number: int) -> None:
    """One layer: a file more, one fewer, one directory replaced by a link."""
    assert callable(buildah)
    script = (
        f"mkdir -p /data/{number} && echo {number} > /data/{number}/file && ln /data/{number}/file /data/link{number}"
        f" && chown 1000:1000 /data/{number}/file && chmod 4755 /data/{number}/file && mkfifo /data/{number}/fifo"
    )
    if number > 1:
        script += f" && rm -r /data/{number - 1} && ln -s {number} /data/{number - 1}"
    buildah("run", "--isolation", "chroot", container, "/bin/sh", "-c", script)
