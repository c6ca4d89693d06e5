"""Volumes: made, filled from an image, shared, listed, removed; what is left of them by a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.dropin.engines import Engine
from tests.images import Images
from tests.launcher.containers import Containers
from tests.launcher.test_run_images import made
from tests.support.installed import Installed
from tests.support.users import User
from tests.unionfs.compiled_image_support import Item, directory, hardlink, item, regular, symlink

XATTR = {"SCHILY.xattr.user.a": "b"}
CONTENT: list[Item] = [
    directory("data", mode=0o2750, uid=12, gid=34),
    regular("data/file", b"of the image\n", mode=0o4755, uid=12, gid=34, mtime=1_000_000_001),
    hardlink("data/other", "data/file"),
    regular("data/.hidden", b"", mode=0, pax_headers=XATTR),
    directory("data/deep", mode=0o1777, mtime=1_000_000_002),
    symlink("data/deep/link", "/etc/passwd"),
    item("data/deep/pipe", b"6", mode=0o600),
    directory("empty", mode=0o700, uid=5, gid=5),
    symlink("to-data", "../../data"),
    *(regular(f"many/{number}", b"x") for number in range(400)),
]
LOOK = "cd /data; find . -print | sort | xargs stat -c '%n %f %u %g %h %N'; stat -c %Y file deep; cat file"


@pytest.fixture
def ufs(user: User, images: Images) -> Iterator[Containers]:
    """With an image that has content where volumes go."""
    found = Containers(user, made(user, images, CONTENT))
    yield found
    found.close()
    assert found.run("volume", "prune", "--all", "--force").returncode == 0
    places = user.store / "volumes"
    assert not places.exists() or os.listdir(places) == []


def data(ufs: Containers, name: str) -> Path:
    return ufs.user.store / "volumes" / name / "_data"


def names(ufs: Containers) -> list[str]:
    return ufs.out("volume", "ls", "--quiet").split()


def test_a_new_volume_is_filled_from_the_image(ufs: Containers) -> None:
    """As if it were the image's directory: owners, modes, links, times; later ones leave it as it is."""
    before = ufs.out("run", "--rm", "IMAGE", "sh", "-c", LOOK)
    assert ufs.out("run", "--rm", "-v", "vol:/data", "IMAGE", "sh", "-c", LOOK) == before
    assert (data(ufs, "vol") / "file").stat().st_ino == (data(ufs, "vol") / "other").stat().st_ino
    ufs.out("run", "--rm", "-v", "vol:/data", "IMAGE", "sh", "-c", "rm -r /data/* /data/.hidden; chmod 711 /data")
    assert ufs.out("run", "--rm", "-v", "vol:/data", "IMAGE", "sh", "-c", "ls -A /data; stat -c %a /data") == "711"


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ("vol:/data:nocopy", "755 0 0\n"),
        ("vol:/empty", "700 5 5\n"),
        ("vol:/nothing/here", "755 0 0\n"),
        ("vol:/data:ro", "2750 12 34\n.hidden\ndeep\nfile\nother\n"),
        ("vol:/to-data", "2750 12 34\n.hidden\ndeep\nfile\nother\n"),
    ],
)
def test_what_a_volume_begins_with(ufs: Containers, mount: str, expected: str) -> None:
    place = mount.split(":")[1]
    said = ufs.out("run", "--rm", "-v", mount, "IMAGE", "sh", "-c", f"stat -L -c '%a %u %g' {place}/; ls -A {place}/")
    one_id = ufs.user.kind == "plain"
    assert said + "\n" == (expected.replace(" 12 34", " 0 0").replace(" 5 5", " 0 0") if one_id else expected)


def test_an_empty_one_is_filled_by_a_later_image_and_one_with_content_is_not(ufs: Containers) -> None:
    ufs.out("volume", "create", "later")
    ufs.out("run", "--rm", "-v", "later:/empty", "IMAGE", "true")
    assert "file" in ufs.out("run", "--rm", "-v", "later:/data", "IMAGE", "ls", "/data")
    ufs.out("volume", "create", "mine")
    ufs.out("run", "--rm", "-v", "mine:/data:nocopy", "IMAGE", "touch", "/data/mine")
    assert ufs.out("run", "--rm", "-v", "mine:/data", "IMAGE", "ls", "-A", "/data") == "mine"


def test_several_containers_share_one(ufs: Containers) -> None:
    ufs.background("--name", "one", "-v", "shared:/x", script="while [ ! -e /x/go ]; do sleep 0.02; done; cat /x/go")
    ufs.out("run", "--rm", "-v", "shared:/a/b/c", "-v", "shared:/again:ro", "IMAGE", "sh", "-c", "echo hi >/a/b/c/go")
    assert ufs.out("wait", "one") == "0"
    assert ufs.out("logs", "one") == "hi"
    assert "in use by container one: remove that first" in ufs.fails("volume", "rm", "shared")
    assert ufs.out("ps", "-a", "--filter", "volume=shared", "--format", "{{.Names}} {{.Mounts}}") == "one shared"


def test_ten_containers_create_and_fill_one_at_once(ufs: Containers) -> None:
    ufs.user.run(["ufs", "load", ufs.image], check=True)

    def run(number: int) -> str:
        script = f"ls /many | grep -vc new; echo > /many/new{number}"
        return ufs.out("run", "--rm", "-v", "vol:/many", "IMAGE", "sh", "-c", script)

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(run, range(10))) == ["400"] * 10
    assert os.listdir(ufs.user.store / "volumes") == ["vol"]
    assert sorted(os.listdir(data(ufs, "vol").parent)) == ["_data", "config.json"]


def test_anonymous_ones_go_with_their_container_when_asked(ufs: Containers) -> None:
    ufs.out("run", "--rm", "-v", "/anon", "-v", "named:/n", "IMAGE", "sh", "-c", "mkdir -m 0 /anon/x; : >/n/x")
    assert names(ufs) == ["named"], "--rm"
    ufs.out("create", "--name", "one", "-v", "/anon", "IMAGE", "true")
    ufs.out("create", "--name", "two", "--volumes-from", "one", "IMAGE", "true")
    ufs.out("rm", "-v", "one")
    assert len(names(ufs)) == 2, "another container has it"
    ufs.out("rm", "-v", "two")
    assert names(ufs) == ["named"]
    ufs.out("create", "--name", "three", "-v", "/anon", "IMAGE", "true")
    ufs.out("rm", "three")
    assert len(names(ufs)) == 2, "without -v it stays"
    assert len(names(ufs)[0]) == 64 or len(names(ufs)[1]) == 64
    said = ufs.out("volume", "prune", "--force")
    assert said.startswith("Deleted Volumes:\n")
    assert names(ufs) == ["named"], "one with a name stays without --all"
    assert ufs.out("volume", "rm", "named") == "named"


def test_volumes_of_the_image_and_of_another_container(user: User, images: Images) -> None:
    ufs = Containers(user, made(user, images, CONTENT, Volumes={"/data": {}, "/empty": {}}))
    ufs.out(
        "run", "--name", "one", "-v", "keep:/keep", "IMAGE", "sh", "-c", "echo x >>/data/file; touch /keep/y /empty/e"
    )
    assert len(names(ufs)) == 3
    look = "tail -n1 /data/file; ls /keep /empty; touch /keep/z"
    said = ufs.run("run", "--rm", "--volumes-from", "one:ro", "-v", "other:/empty", "IMAGE", "sh", "-c", look)
    assert said.stdout == "x\n/empty:\n\n/keep:\ny\n"
    assert "Read-only file system" in said.stderr
    assert len(names(ufs)) == 4
    ufs.out("rm", "-v", "one")
    assert names(ufs) == ["keep", "other"]
    assert "no container 'one'" in ufs.fails("run", "--volumes-from", "one", "IMAGE", "true", status=125)


def options_of(ufs: Containers, place: str, *mounts: str) -> set[str]:
    said = ufs.out("run", "--rm", *mounts, "IMAGE", "sh", "-c", f"grep ' {place} ' /proc/mounts | tail -n1")
    return {*said.split()[3].split(","), said.split()[2]}


def test_options_are_in_force(ufs: Containers) -> None:
    assert {"nosuid", "nodev", "rw"} <= options_of(ufs, "/v", "-v", "vol:/v")
    found = options_of(ufs, "/v", "-v", "vol:/v:suid,dev,noexec,ro,z")
    assert {"noexec", "ro"} <= found
    assert not {"nosuid", "nodev"} & found or ufs.user.store.stat().st_dev != Path("/").stat().st_dev
    assert {"noexec", "nosuid"} <= options_of(ufs, "/b", "-v", f"{ufs.user.temp}:/b:noexec,nosuid")
    assert {"tmpfs", "noexec", "nosuid", "nodev", "size=1024k"} <= options_of(ufs, "/t", "--tmpfs", "/t:size=1m")
    found = options_of(ufs, "/t", "--mount", "type=tmpfs,dst=/t,tmpfs-mode=0710,tmpfs-size=4096,ro")
    assert {"mode=710", "size=4k", "ro"} <= found
    assert "noexec" not in options_of(ufs, "/t", "--tmpfs", "/t:exec")


def test_links_in_a_shared_volume_lead_nowhere_else(ufs: Containers) -> None:
    """CVE-2021-30465: another container puts a link, which also changes meanwhile, where the next volume is to be."""
    outside = ufs.user.temp / "outside"
    outside.mkdir()
    ufs.user.own(outside)
    swap = f"ln -s {outside} /s/one; mkdir /s/two; while :; do mv /s/one /s/x; mv /s/two /s/one; mv /s/x /s/two; done"
    ufs.background("--name", "swapper", "-v", "shared:/s", script=swap)
    for _ in range(4):
        done = ufs.run("run", "--rm", "-v", "shared:/s", "-v", "other:/s/one/deep", "IMAGE", "true")
        assert done.returncode == 0 or done.stderr.count("\n") == 1, done.stderr
    ufs.out("rm", "-f", "swapper")
    assert os.listdir(outside) == []


def test_u_gives_a_volume_to_the_user_of_the_command(ufs: Containers) -> None:
    """Of the store and of the host, with all that is below, links apart; also where it is shown read-only."""
    place = ufs.user.temp / "place"
    (place / "deep").mkdir(parents=True)
    (place / "deep/file").touch()
    (place / "link").symlink_to("/etc/hostname")
    ufs.user.own(place)
    mounts = ("-v", "vol:/data:U", "-v", f"{place}:/b:ro,U")
    script = "id -u; touch /data/mine; stat -c %u:%g /data /data/deep/link /b /b/deep/file; touch /b/x"
    said = ufs.run("run", "--rm", *mounts, "-u", "77:78", "IMAGE", "sh", "-c", script)
    assert said.stdout == "77\n" + "77:78\n" * 4
    assert "Read-only file system" in said.stderr
    ufs.out("run", "--rm", "-v", f"{place}:/b:U", "IMAGE", "true")
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (place, place / "link", place / "deep/file")}
    assert owners == {(ufs.user.uid, ufs.user.gid)}
    if ufs.user.kind == "subuid":  # root's files have no id in its containers
        says = ufs.fails("run", "--rm", "-v", "/etc/hostname:/b:U", "IMAGE", "true", status=125)
        assert "-v /etc/hostname:/b:U: cannot give its files to 0:0: " in says


def test_mount_in_words(ufs: Containers) -> None:
    bind = f"type=bind,src={ufs.user.temp},target=/b,readonly"
    words = ["--mount", bind, "--mount", "src=vol,dst=/v,volume-nocopy", "--mount", "type=volume,dst=/data"]
    identity = ufs.out("create", *words, "--name", "one", "--tmpfs", "/t", "IMAGE", "sh", "-c", "ls /data; touch /b/x")
    said = ufs.run("start", "--attach", "one")
    assert said.stdout == "deep\nfile\nother\n"
    assert "Read-only file system" in said.stderr
    mounts = json.loads(ufs.out("inspect", identity, "--format", "{{json .Mounts}}"))
    shown = [(one["Type"], one.get("Name", "")[:5], one["Destination"], one["RW"]) for one in mounts]
    assert shown[:2] == [("bind", "", "/b", False), ("volume", "vol", "/v", True)]
    assert mounts[1]["Source"] == str(data(ufs, "vol"))
    assert {(kind, place) for kind, _, place, _ in shown[2:]} == {("volume", "/data"), ("tmpfs", "/t")}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-v .bad:/x", "a name has up to 255"),
        ("-v a/b:/x", "a name has up to 255"),
        (f"-v {'n' * 256}:/x", "a name has up to 255"),
        ("--tmpfs /x:U", "write uid= and gid="),
        ("-v /tmp:/x:rshared", "rslave passes those of the host on"),
        ("-v vol:/x:rslave", "nothing is mounted in a volume"),
        ("-v vol:/x:ro,rw", "ro and rw contradict each other"),
        ("-v one:/x -v two:/x/", "two mounts are for /x"),
        ("-v one:/x --tmpfs /x", "two mounts are for /x"),
        ("--mount type=image,src=x,dst=/x", "type=image: there are bind, volume and tmpfs"),
        ("--mount type=bind,dst=/x", "src=, the directory or file of the host, is missing"),
        ("--mount src=vol", "dst=, the place in the container, is missing"),
        ("--mount src=vol,dst=/x,colour=red", "there is no 'colour'"),
        ("--mount src=vol,dst=/x,tmpfs-size=1", "size is for type=tmpfs alone"),
        ("--tmpfs /x:size=many", "give a number of bytes"),
        ("--tmpfs /x:huge=perhaps", "huge"),
        ("--tmpfs relative", "must be an absolute path"),
        ("--volumes-from nosuch", "no container 'nosuch'"),
        ("--volumes-from nosuch:exec", "there are ro and rw"),
    ],
)
@pytest.mark.only_root
def test_what_cannot_be_mounted_is_told(root_user: User, images: Images, words: str, says: str) -> None:
    ufs = Containers(root_user, images.path("busybox", "docker.tar"))
    assert says in ufs.fails("run", "--rm", *words.split(), "IMAGE", "true", status=125)
    assert ufs.out("ps", "-aq") == ""
    assert [name for name in names(ufs) if name not in ("one", "two")] == []


def test_commands_on_volumes(ufs: Containers) -> None:
    assert ufs.out("volume", "create", "--label", "a=b", "--label", "c", "one") == "one"
    assert ufs.out("volume", "create", "one") == "one", "as docker's"
    two = ufs.out("volume", "create")
    assert len(two) == 64
    assert (
        ufs.out("volume", "ls", "--format", "{{.Name}} {{.Labels}} {{.Driver}}").splitlines()[-1] == "one a=b,c= local"
    )
    for wanted, found in (("label=a", ["one"]), ("label=a=x", []), ("name=^o", ["one"]), ("dangling=false", [])):
        assert ufs.out("volume", "ls", "-q", "--filter", wanted).split() == found
    assert "there is no filter 'x'" in ufs.fails("volume", "ls", "--filter", "x=y")
    assert ufs.out("volume", "inspect", "one", "--format", "{{.Mountpoint}} {{.Labels.a}}") == f"{data(ufs, 'one')} b"
    done = ufs.run("volume", "inspect", "nosuch")
    assert (done.returncode, done.stdout) == (1, "[]\n")
    assert done.stderr == "ufs: no volume 'nosuch'; `ufs volume ls` lists them\n"
    assert "no volume '../one'" in ufs.fails("volume", "rm", "../one")
    assert "a name has up to 255" in ufs.fails("volume", "create", "a b")
    assert ufs.run("volume", "rm", "--force", "nosuch").returncode == 0
    done = ufs.run("volume", "rm", "nosuch", "one")
    assert (done.returncode, done.stdout) == (1, "one\n")
    ufs.out("volume", "rm", two)


def test_inspect_and_df_know_them(ufs: Containers) -> None:
    ufs.out("run", "--name", "one", "-v", "vol:/x", "-v", "/y", "IMAGE", "sh", "-c", "head -c 3000 /dev/zero >/x/z")
    assert ufs.out("inspect", "vol", "--format", "{{.Name}} {{.Driver}}") == "vol local"
    assert ufs.out("inspect", "--type", "volume", "vol", "--format", "{{.Mountpoint}}") == str(data(ufs, "vol"))
    assert "no volume 'one'" in ufs.run("inspect", "--type", "volume", "one").stderr
    ufs.out("volume", "create", "other")
    row = "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}"
    assert ufs.out("df", "--format", row).splitlines()[-1] == "Local volumes 3 2 3kB 0B (0%)"
    ufs.out("rm", "-v", "one")
    assert ufs.out("df", "--format", row).splitlines()[-1] == "Local volumes 2 0 3kB 3kB (100%)"


def test_what_is_copied_before_the_first_start_comes_on_top_of_the_images(ufs: Containers) -> None:
    ufs.out("create", "--name", "one", "-v", "vol:/data", "IMAGE", "ls", "/data")
    (ufs.user.home / "mine").write_text("")
    assert ufs.run("cp", "mine", "one:/data/").returncode == 0
    assert ufs.run("start", "-a", "one").stdout == "deep\nfile\nmine\nother\n"


def test_a_volume_whose_files_are_gone_or_damaged(ufs: Containers) -> None:
    ufs.out("create", "--name", "one", "-v", "vol:/x", "IMAGE", "true")
    shutil.rmtree(data(ufs, "vol"))
    said = ufs.fails("start", "one")
    assert f"volume vol: {data(ufs, 'vol')} does not exist" in said
    (data(ufs, "vol").parent / "config.json").write_text("{")
    assert names(ufs) == ["vol"]
    assert "volume vol is damaged" in ufs.run("volume", "inspect", "vol").stderr
    ufs.out("rm", "one")
    assert ufs.out("volume", "rm", "vol") == "vol"


@pytest.mark.only_root
def test_a_store_that_cannot_be_written(root_user: User, images: Images) -> None:
    ufs, disk = Containers(root_user, images.path("busybox", "docker.tar")), root_user.home / "disk"
    disk.mkdir()
    root_user.run(["mount", "-t", "tmpfs", "none", disk], check=True)
    try:
        root_user.env["XDG_DATA_HOME"] = str(disk)
        ufs.out("volume", "create", "one")
        root_user.run(["mount", "-o", "remount,ro", disk], check=True)
        assert ufs.out("volume", "ls", "-q") == "one"
        assert ufs.out("volume", "inspect", "one", "-f", "{{.Name}}") == "one"
        for words in (["create", "two"], ["rm", "one"], ["prune", "-af"]):
            assert "Read-only file system" in ufs.fails("volume", *words)
        assert "no volume 'two'" in ufs.fails("volume", "rm", "two")
    finally:
        root_user.run(["umount", disk], check=True)


def killed(ufs: Containers, command: list[str], seconds: float) -> None:
    """Run a command and kill it, with all that it started in its session, after so many seconds."""
    process = ufs.user.popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_kill_at_any_moment_leaves_nothing_without_an_owner(ufs: Containers) -> None:
    """Of who makes, fills, and removes: a volume is filled whole or not at all, and what is left over is swept."""
    command = ["ufs-run", "--rm", "-v", "vol:/many", "-v", "/anon", ufs.image, "true"]
    ufs.user.run(["ufs", "load", ufs.image], check=True)
    for delay in range(5, 125, 20):
        killed(ufs, command, delay / 1000)
        said = ufs.out("run", "--rm", "-v", "vol:/many", "IMAGE", "sh", "-c", "ls -A /many | wc -l")
        assert said == "400", delay
        killed(ufs, ["ufs", "volume", "rm", "vol"], 0.08 + delay / 2000)
        ufs.run("volume", "rm", "--force", "vol", check=True)
    assert names(ufs) == []
    ufs.out("prune")
    assert os.listdir(ufs.user.store / "volumes") == []


@pytest.mark.only_root
def test_mounts_of_the_host_reach_a_container_where_that_is_asked(root_user: User, images: Images) -> None:
    ufs = Containers(root_user, images.path("busybox", "docker.tar"))
    place = root_user.temp / "shared"
    place.mkdir()
    run = root_user.run
    assert "neither shared nor slave" in ufs.fails("run", "-v", f"{place}:/x:rslave", "IMAGE", "true", status=125)
    run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        run(["mount", "--make-shared", place], check=True)
        (place / "below").mkdir()
        script = "while [ ! -e /x/below/seen ]; do sleep 0.02; done; [ ! -e /y/below/seen ] && echo seen"
        ufs.background("--name", "one", "-v", f"{place}:/x:rslave", "-v", f"{place}:/y", script=script)
        run(["mount", "-t", "tmpfs", "none", place / "below"], check=True)
        (place / "below" / "seen").touch()
        assert ufs.out("wait", "one") == "0"
        assert ufs.out("logs", "one") == "seen"
    finally:
        run(["umount", "-R", place], check=True)
        ufs.close()


@pytest.mark.only_root
def test_volumes_are_as_podmans(root_user: User, images: Images, installed: Installed) -> None:
    """The same actions with the same image: what each begins with, and what is listed."""
    image = made(root_user, images, CONTENT)
    ufs = Containers(root_user, image)
    engine = Engine(root_user, "/usr/bin/fuse-overlayfs", root_user.home / "podman")
    engine.sh(f"podman load --quiet --input {image}")
    # Podman's copy loses owner and mode of files that have several names.
    script = LOOK.replace("'", '"').replace("-print", "! -name file ! -name other").replace("-c %Y file", "-c %Y")
    for place in ("/data", "/empty", "/new"):
        look = f'stat -c "%a %u %g" {place}; ls -A {place}' if place != "/data" else script
        theirs = engine.run(f"--volume v{place[1:]}:{place}", "it:1", look)
        assert ufs.out("run", "--rm", "-v", f"v{place[1:]}:{place}", "IMAGE", "sh", "-c", look) + "\n" == theirs
    fields = "{{.Name}} {{.Driver}} {{.Scope}}"
    assert ufs.out("volume", "ls", "--format", fields) + "\n" == engine.sh(f"podman volume ls --format '{fields}'")
    [ours] = json.loads(ufs.out("volume", "inspect", "vdata"))
    [theirs_] = json.loads(engine.sh("podman volume inspect vdata"))
    assert ours.keys() <= theirs_.keys()
    engine.remove()
