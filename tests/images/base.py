"""A small image to run commands in: a static busybox under the names of its applets."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.images import tools

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nsomebody:x:1000:1000::/home/somebody:/bin/sh\n",
    "etc/group": "root:x:0:\nsomebody:x:1000:\nextra:x:2000:somebody\n",
    "etc/os-release": "ID=ufs-test\nNAME='ufs test image'\n",
    "root/.profile": "",
}
FOLDERS = ("bin", "etc", "root", "home/somebody", "proc", "sys", "dev", "tmp", "var/tmp", "usr/bin")


def populate(root: Path) -> None:
    """Write the file system."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    busybox = root / "bin/busybox"
    shutil.copyfile("/bin/busybox", busybox)
    busybox.chmod(0o755)
    for applet in tools.run("/bin/busybox", "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")


def build(into: Path) -> None:
    """The forms of `tools.convert_all`, tag busybox, Cmd /bin/sh."""
    layout = into / "umoci"
    image = tools.new_layout(layout, "busybox")
    tools.repack(image, populate, into / "bundle")
    tools.run(
        "umoci", "config", "--image", image, "--config.cmd", "/bin/sh",
        "--config.env", "PATH=/usr/local/bin:/usr/bin:/bin", "--config.env", "GREETING=hello",
    )  # fmt: skip
    tools.convert_all(layout, "busybox", into)
