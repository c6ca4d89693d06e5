"""What leaves the store: rmi, prune, and the leftovers of loads that were killed or ran out of space."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.errors import UfsError
from launcher.image import workspace
from launcher.image.load import load
from launcher.image.remove import prune, remove
from launcher.image.resolve import resolve
from launcher.image.store import Store
from tests.launcher import archives
from tests.support.users import User
from tests.support.waiting import wait_until


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two images that share a layer: one:1 (also one:2) and two:1."""
    made = Store(str(tmp_path / "store"))
    files: archives.Files = {}
    one = archives.image(files, [archives.FIRST], "+gzip")
    two = archives.image(files, [archives.FIRST, archives.SECOND], "+gzip")
    entries = [archives.named(one, "one:1"), archives.named(one, "one:2"), archives.named(two, "two:1")]
    load(str(archives.write(archives.layout(files, entries), tmp_path / "layout")), made)
    return made


def counts(store: Store) -> tuple[int, int, int]:
    """Blobs, layers and indexes."""
    blobs, layers, images = (len(os.listdir(store.path(name))) for name in ("blobs/sha256", "layers", "images"))
    return blobs, layers, images


def test_an_image_goes_with_its_last_name(store: Store) -> None:
    assert counts(store) == (6, 2, 2)
    removed = remove(["one:1"], store)
    assert removed == (["docker.io/library/one:1"], [])
    assert counts(store) == (6, 2, 2)
    removed = remove(["one:2"], store)
    assert len(removed.images) == 1
    assert counts(store) == (4, 2, 1), "the shared layer stays"
    remove(["two:1"], store)
    assert counts(store) == (0, 0, 0)


def test_by_id(store: Store) -> None:
    identity = resolve("two:1", store).id
    assert identity is not None
    remove([identity[:12]], store)
    with pytest.raises(UfsError, match="no image 'two:1'; did you mean"):
        remove(["two:1"], store)
    shared = resolve("one:1", store).id
    assert shared is not None
    with pytest.raises(UfsError, match="has several names: one:1, one:2"):
        remove([shared[:12]], store)
    assert remove([shared[:12]], store, force=True).images == [shared]


def test_unknown_among_known_removes_nothing(store: Store) -> None:
    with pytest.raises(UfsError, match="no image 'three'"):
        remove(["one:1", "three"], store)
    assert len(store.records()) == 3


def test_an_image_that_a_container_uses_stays(store: Store) -> None:
    identity = resolve("two:1", store).id
    container = Path(store.path("containers", "c1"))
    container.mkdir()
    (container / "config.json").write_text(json.dumps({"image_id": identity, "name": "box"}))
    with pytest.raises(UfsError, match="is used by container box"):
        remove(["two:1"], store)
    assert remove(["two:1"], store, force=True).images == []
    assert resolve(str(identity), store).id == identity
    assert counts(store) == (6, 2, 2)


def test_prune_removes_what_nothing_leads_to(store: Store) -> None:
    before = counts(store)
    for name in ("blobs/sha256/" + "a" * 64, "layers/x.tar", "images/x.index", "tmp/left"):
        Path(store.path(name)).write_bytes(bytes(1000))
    Path(store.path("tmp/dead")).mkdir()
    Path(store.path("tmp/dead/blob")).write_bytes(bytes(500))
    assert prune(store) == 4500
    assert counts(store) == before
    assert os.listdir(store.path("tmp")) == []


def test_prune_waits_for_who_adds(store: Store) -> None:
    def finish() -> None:
        working.__exit__(None, None, None)

    working = workspace.Workspace(store)
    working.__enter__()
    fd, path = working.temporary()
    os.close(fd)
    assert prune(store, wait=False) == 0
    assert workspace.sweep(store) == 0, "a live owner's temporaries stay"
    assert os.path.exists(path)
    prune(store, waiting=finish)
    assert os.listdir(store.path("tmp")) == []


def test_a_store_of_another_version_is_left_alone(store: Store) -> None:
    Path(store.path("version")).write_text("7\n")
    with pytest.raises(UfsError, match="has version '7'"):
        resolve("one:1", store)


def test_index_changes_are_not_lost(store: Store) -> None:
    """Who changes index.json while another holds its lock waits."""
    with workspace.locked(store, "index.lock", fcntl.LOCK_EX):
        code = "import sys; from launcher.cli.main import run; sys.exit(run(['rmi', 'one:1']))"
        env = {**os.environ, "UFS_ROOT": store.root}
        process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL)
        wait_until(lambda: process.poll() is not None or _waits_for_lock(process.pid), "the other to wait")
        assert len(store.records()) == 3
    assert process.wait(60) == 0
    assert len(store.records()) == 2


def _waits_for_lock(pid: int) -> bool:
    """proc_locks(5): what waits is listed behind an arrow."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and str(pid) in line.split() for line in lines)


def test_killed_in_the_middle(root_user: User) -> None:
    """A load that is killed while it reads leaves temporaries, which the next load removes."""
    store = Store(str(root_user.store))
    data = archives.tar(archives.oci("+gzip"))
    process = root_user.popen(["ufs", "load", "-"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(data[:2000])
    process.stdin.flush()
    temporaries = root_user.store / "tmp"
    wait_until(lambda: temporaries.is_dir() and any(temporaries.iterdir()), "the load to begin")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    assert any(temporaries.iterdir())
    assert store.records() == []
    root_user.run(["ufs", "load", "-"], input=data, text=False, check=True)
    assert not any(temporaries.iterdir())
    assert len(store.records()) == 1


@pytest.mark.only_root
def test_a_full_disk(tmp_path: Path) -> None:
    """One line that names the place; nothing stays, and with room it works."""
    noise = os.urandom(2 << 20).hex()
    files: archives.Files = {}
    entry = archives.named(archives.image(files, [archives.layer({"big": noise})]), "big:1")
    layout = archives.write(archives.layout(files, [entry]), tmp_path / "layout")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    try:
        store = Store(str(small / "store"))
        with pytest.raises(UfsError, match=r"No space left on device; free some space there, or set UFS_ROOT"):
            load(str(layout), store)
        assert os.listdir(store.path("tmp")) == []
        assert counts(store) == (0, 0, 0)
        subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
        load(str(layout), store)
    finally:
        subprocess.run(["umount", small], check=True)
