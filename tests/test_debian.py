"""A whole Debian (or Ubuntu) root, made with debootstrap, at work: shell, dpkg, python3, a compiler if there is one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.images import Images
from tests.support.snapshot import differences, snapshot
from tests.support.users import PLAIN, User

pytestmark = pytest.mark.only_root  # debootstrap needs it

PACKAGE = """\
Package: ufs-hello
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: says hello
"""

WORK = """
set -e
dpkg -i /packages/ufs-hello.deb >/dev/null
dpkg -s ufs-hello | grep -x 'Status: install ok installed'
ufs-hello
dpkg --verify ufs-hello
python3 -c 'import json, pathlib; pathlib.Path("/root/by-python").write_text(json.dumps([1, 2])); print("python works")'
if command -v cc >/dev/null; then
    echo 'int main(void) { return 7; }' >/root/a.c && cc -o /root/a /root/a.c && { /root/a || test $? = 7; }
fi
echo changed >>/etc/hostname.extra
mv /usr/share/common-licenses /usr/share/licences-moved
rm -r /usr/share/zoneinfo 2>/dev/null || true
dpkg --configure -a
dpkg -r ufs-hello >/dev/null
dpkg -i /packages/ufs-hello.deb >/dev/null
echo done
"""


@pytest.fixture
def packages(user: User) -> Path:
    """A directory with a small package of one program and one configuration file."""
    tree = user.temp / "package"
    for name, text, mode in (
        ("DEBIAN/control", PACKAGE, 0o644),
        ("DEBIAN/conffiles", "/etc/ufs-hello.conf\n", 0o644),
        ("DEBIAN/postinst", "#!/bin/sh\nset -e\ntouch /var/lib/ufs-hello-configured\n", 0o755),
        ("etc/ufs-hello.conf", "greeting=hello\n", 0o644),
        ("usr/bin/ufs-hello", "#!/bin/sh\n. /etc/ufs-hello.conf\necho $greeting from the package\n", 0o755),
    ):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    folder = user.temp / "packages"
    folder.mkdir()
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, folder / "ufs-hello.deb"],
        check=True,
        capture_output=True,
    )
    user.own(user.temp)
    return folder


def published(store: Path) -> dict[str, dict[str, Any]]:
    """Everything in a store but the containers."""
    return {path: entry for path, entry in snapshot(str(store)).items() if not path.startswith("containers")}


def test_a_debian_root_at_work_writes_to_its_own_upper(user: User, images: Images, packages: Path) -> None:
    """dpkg, python3 and a shell work as they do on a disk, and only the container's upper knows of it."""
    user.run(["ufs", "load", images.path("debian", "image.oci")], check=True)
    before = published(user.store)
    home_before = snapshot(str(user.temp))
    argv = ["ufs-run", "--name", "work", "-v", f"{packages}:/packages:ro", "debian", "/bin/sh", "-c", WORK]
    done = user.run(argv, check=True)
    lines = done.stdout.splitlines()
    for line in ("hello from the package", "python works", "done", "Status: install ok installed"):
        assert line in lines, done

    assert differences(published(user.store), before, frozenset({"mtime"})) == ""
    assert differences(snapshot(str(user.temp)), home_before) == ""
    assert not Path("/usr/bin/ufs-hello").exists()
    changed = user.run(["ufs", "diff", "work"], check=True).stdout.splitlines()
    for line in ("A /usr/bin/ufs-hello", "A /etc/hostname.extra", "A /root/by-python", "C /var/lib/dpkg/status"):
        assert line in changed, changed
    (upper,) = user.store.glob("containers/*/upper")
    assert (upper / "usr/bin/ufs-hello").is_file()

    fresh = ["ufs-run", "--rm", "debian", "/bin/sh", "-c", "! test -e /usr/bin/ufs-hello && dpkg --verify"]
    assert user.run(fresh, check=True).stdout == ""
    user.run(["ufs", "rm", "work"], check=True)
    assert not list(user.store.glob("containers/*"))


APT = """
set -e
mkdir -p /repo/p && : > /repo/p/Packages
rm -rf /etc/apt/sources.list.d; echo 'deb [trusted=yes] copy:/repo/p ./' > /etc/apt/sources.list
apt-get update 2>&1
ls /var/lib/apt/lists | grep Packages
"""

PRIVILEGES = """
cp /usr/bin/id /bin/set-id; chmod 4755 /bin/set-id
setpriv --reuid 1000 --clear-groups /bin/set-id -u
sed -n 's/NoNewPrivs:.//p; s/Seccomp:.//p' /proc/self/status
"""


def test_apt_gets_lists_whoever_runs_it(user: User, images: Images) -> None:
    """It downloads as another user, and checks that it became that one: with one mapped id it is told not to."""
    argv = ["ufs-run", "--name", "lists", images.path("debian", "image.oci"), "sh", "-c", APT]
    done = user.run(argv, check=True)
    assert "_Packages" in done.stdout
    assert "Could not switch" not in done.stdout
    assert "apt.conf" not in user.run(["ufs", "diff", "lists"], check=True).stdout


def test_set_user_id_programs_have_an_option(user: User, images: Images) -> None:
    image = images.path("debian", "image.oci")
    asked = ["--security-opt", "no-new-privileges=false"]
    found = [
        user.run(["ufs-run", "--rm", *options, image, "sh", "-c", PRIVILEGES], check=True).stdout.split()
        for options in (asked, [])
    ]
    assert found == [["0", "0", "2"], ["0" if user.kind == PLAIN else "1000", "1", "2"]]
