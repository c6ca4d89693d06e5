"""hosts, resolv.conf and hostname of a container: from the host's, and over whatever the image has in their place."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.images import Images
from tests.launcher.running import Runner
from tests.support.users import User

SHOW = "cat /etc/hostname; grep -c localhost /etc/hosts; tail -n1 /etc/hosts; cat /etc/resolv.conf"
SHOWN = "box\n{localhosts}\n127.0.1.1\tbox\n{resolver}"

ODD = {
    "a-directory-a-loop-and-a-fifo": {"etc/hosts/deep": None, "etc/resolv.conf": "resolv.conf", "etc/hostname": ""},
    "links-to-proc": {
        "etc/hosts": "/proc/self/status", "etc/resolv.conf": "/proc/1/root/etc/resolv.conf", "etc/hostname": "/proc/no"
    },
    "links-to-nothing": {
        "etc/hosts": "passwd/x", "etc/resolv.conf": "../run/systemd/stub.conf", "etc/hostname": "../../../../x" * 300
    },
    "links-to-dev": {"etc/hosts": "/dev/null", "etc/resolv.conf": "/dev/nothing", "etc/hostname": "/sys/no"},
    "etc-is-a-link": {"etc": "deep/down/etc"},
}  # fmt: skip


def odd_image(run: Runner, images: Images, members: dict[str, str | None]) -> Path:
    """The busybox image and a layer over it: name to the target of a link, "" for a fifo, None for a directory."""
    layout, layer = run.user.temp / "odd", run.user.temp / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        for name, target in members.items():
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if target is None else tarfile.SYMTYPE if target else tarfile.FIFOTYPE
            member.mode, member.linkname = 0o755, target or ""
            archive.addfile(member)
    run.user.own(layer)
    run.user.run(["cp", "-r", images.path("busybox", "plain.oci"), layout], check=True)
    run.user.run(["umoci", "raw", "add-layer", "--image", f"{layout}:busybox", layer], check=True)
    return layout


@pytest.mark.parametrize("members", ODD.values(), ids=ODD)
def test_whatever_the_image_has_there_gives_way(run: Runner, images: Images, members: dict[str, str | None]) -> None:
    image = odd_image(run, images, members)
    expected = SHOWN.format(
        localhosts=2 + Path("/etc/hosts").read_text().count("ip6-localhost"),
        resolver=Path("/etc/resolv.conf").read_text(),
    )
    words = ["ufs-run", "--name", "odd", "-h", "box", image, "sh", "-c", SHOW]
    done = run.user.run(words)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    changed = run.user.run(["ufs", "diff", "odd"], check=True).stdout
    assert changed == ""


@pytest.mark.parametrize("target", [".", "bin/busybox/etc", "/proc/etc", "/shared/etc"])
def test_a_directory_that_is_none_is_told(run: Runner, images: Images, target: str) -> None:
    """Not made in a volume either: that is the host's."""
    image = odd_image(run, images, {"etc": target} if target != "." else {"etc": "etc"})
    shared = run.user.temp / "shared"
    shared.mkdir()
    run.user.own(shared)
    done = run.user.run(["ufs-run", "--rm", "-v", f"{shared}:/shared", image, "true"])
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "/etc is no directory in the image" in done.stderr
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_nothing_is_made_in_a_volume(run: Runner, mode: str) -> None:
    """What the volume has is covered, what it lacks stays away."""
    shared = run.user.temp / "shared"
    shared.mkdir()
    (shared / "hosts").write_text("of the volume\n")
    (shared / "hostname").symlink_to("nowhere")
    (shared / "resolv.conf").mkdir()
    run.user.own(shared)
    out = run.out("-v", f"{shared}:/etc:{mode}", "-h", "box", "IMAGE", "sh", "-c", "tail -n1 /etc/hosts; ls /etc")
    assert out == "127.0.1.1\tbox\nhostname\nhosts\nresolv.conf\n"
    assert (shared / "hosts").read_text() == "of the volume\n"
    assert sorted(path.name for path in shared.iterdir()) == ["hostname", "hosts", "resolv.conf"]


HOSTS = """\
127.0.0.1\tlocalhost
127.0.1.1 machine   # comment
 127.0.0.1 localhost alias.test
# 10.0.0.1 comment.test
::1 ip6-localhost ip6-loopback
::1 localhost6.test
fd00:1::5 ula.test
ff02::1 ip6-allnodes
10.1.2.3 far.test\r
broken
"""


@pytest.mark.only_root
def test_the_hosts_own_names_are_known(root_user: User, images: Images) -> None:
    """Aliases of the loopback device and local addresses too, for the network is the host's."""
    run = Runner(root_user, images.path("busybox", "docker.tar"))
    (root_user.temp / "hosts").write_text(HOSTS)
    script = (
        f"mount --bind {root_user.temp}/hosts /etc/hosts; exec {root_user.bin}/ufs-run --rm {run.image} cat /etc/hosts"
    )
    out = root_user.run(["unshare", "-m", "sh", "-ec", script], check=True).stdout
    own = ("127.0.1.1 machine", "127.0.0.1 localhost alias", "::1 localhost6", "fd00:1::5", "10.1.2.3")
    kept = [line.strip() for line in HOSTS.splitlines() if line.strip().startswith(own)]
    assert [line.strip() for line in out.splitlines()][6:-1] == kept


@pytest.mark.only_root
@pytest.mark.parametrize(
    "change", ["ln -s loop loop; mount --bind . /etc", "mount --bind . /etc; mkdir hosts; mkfifo resolv.conf"]
)
def test_a_host_without_these_files(root_user: User, images: Images, change: str) -> None:
    run = Runner(root_user, images.path("busybox", "docker.tar"))
    place = root_user.temp / "etc"
    place.mkdir()
    (place / "hosts").symlink_to("hosts")
    (place / "resolv.conf").symlink_to("nowhere")
    script = f"rm -f hosts resolv.conf; {change}; exec {root_user.bin}/ufs-run --rm -h box {run.image} sh -c '{SHOW}'"
    if "loop" in change:
        script = script.replace("rm -f hosts resolv.conf; ", "")
    done = root_user.run(["unshare", "-m", "sh", "-ec", script], cwd=place)
    assert (done.returncode, done.stdout) == (0, SHOWN.format(localhosts=2, resolver=""))
