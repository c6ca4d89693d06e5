"""Running podman and buildah with a storage of their own and a chosen mount program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.users import User

# crun refuses to start where cgroup v1 and v2 are both mounted, so it is shown v2 alone; and this may be a machine
# that forbids raising limits. The mounts are made in a namespace of their own and go with it; so do the processes, and
# there a shell collects those that conmon leaves, which podman waits for.
_ENTER = """
for mounted in /sys/fs/cgroup/unified /sys/fs/cgroup/* /sys/fs/cgroup; do umount "$mounted" 2>/dev/null; done
mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null
exec setpriv --reuid={uid} --regid={gid} --init-groups -- "$@"
"""
_RUN = "podman run --detach --network host --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
BUILD = "buildah bud --isolation chroot --layers --quiet"


class Engine:
    """Podman and buildah as one user; `program` is what mounts their overlays."""

    def __init__(self, user: User, program: str | os.PathLike[str], place: Path) -> None:
        self._user = user
        self.place = place
        place.mkdir()
        (place / "run").mkdir(mode=0o700)
        conf = place / "storage.conf"
        conf.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/graph"\nrunroot = "{place}/runroot"\n'
            f'[storage.options.overlay]\nmount_program = "{os.fspath(program)}"\n'
        )
        os.chown(place, user.uid, user.gid)
        os.chown(place / "run", user.uid, user.gid)
        self._environment = {
            **{name: value for name, value in user.env.items() if not name.startswith("XDG")},
            "HOME": str(place),
            "CONTAINERS_STORAGE_CONF": str(conf),
            "XDG_RUNTIME_DIR": str(place / "run"),
        }

    def sh(self, script: str) -> str:
        """What a shell script prints; a failing command in it fails the test."""
        enter = _ENTER.format(uid=self._user.uid, gid=self._user.gid)
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", enter, "sh", "sh", "-ec", script],
            env=self._environment, cwd=self.place, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}\n{self._started()}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def _started(self) -> str:
        """What `podman run` itself said, see `run`."""
        started = self.place / "started"
        return started.read_text() if started.exists() else ""

    def run(self, options: str, image: str, command: str) -> str:
        """What a shell command in a new container prints."""
        return self.sh(
            f"rm -f id; {_RUN} --cidfile id {options} {image} sh -c '{command}' >started 2>&1 </dev/null;"
            "podman wait $(cat id) >/dev/null; podman logs $(cat id) 2>&1"
        )

    def remove(self) -> None:
        """Take away everything, with the owners that only the engine's own namespace can name."""
        self.sh(
            "podman unshare rm -rf graph runroot; podman system migrate"
            if self._user.uid
            else "umount graph/overlay || true; rm -rf graph"
        )
