"""Stores of a site, UFS_ADDITIONAL_STORES: their images are as if they were one's own, and nothing is written there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import UfsError
from launcher.image import load as loading
from launcher.image.load import load
from launcher.image.remove import prune, remove
from launcher.image.resolve import resolve
from launcher.image.store import ADDITIONAL, Store
from launcher.image.tag import tag
from tests.images import Images
from tests.launcher import archives
from tests.support.users import User


def written(top: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and directory: inode, size and time of change."""
    found = {}
    for directory, folders, files in os.walk(top):
        for name in [*folders, *files, "."]:
            status = os.stat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = status.st_ino, status.st_size, status.st_ctime_ns
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A store with base:1, of which nothing may change."""
    root = tmp_path / "site"
    load(str(archives.write(archives.oci("+gzip", "base:1"), tmp_path / "layout")), Store(str(root), []))
    before = written(root)
    yield root
    assert written(root) == before


def test_its_images_run_and_are_marked_for_every_user(user: User, images: Images, tmp_path: Path) -> None:
    root = user.temp / "site"
    env = {ADDITIONAL: f"{user.temp}/nowhere:{root}"}
    user.run(["ufs", "load", images.path("busybox", "docker.tar")], check=True, env={"UFS_ROOT": str(root)})
    if os.geteuid() == 0:  # as a site has it
        subprocess.run(["chown", "-R", "root:root", root], check=True)
        subprocess.run(["chmod", "-R", "a+rX,go-w", root], check=True)
    before = written(root)
    done = user.run(["ufs-run", "--rm", "busybox", "echo", "hi"], env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "hi\n", 1)
    assert f"additional store {user.temp}/nowhere is passed over" in done.stderr
    listed = user.run(["ufs", "images"], check=True, env=env).stdout.rstrip("\n").split("\t")
    assert (listed[0], listed[-1]) == ("localhost/busybox", "true")
    done = user.run(["ufs", "rmi", "-f", "busybox"], env=env)
    assert f"is in {root}, which is only read" in done.stderr
    user.run(["ufs", "prune", "-af"], check=True, env=env)
    user.run(["ufs", "fsck", "-q"], check=True, env=env)
    assert written(root) == before
    assert not any((user.store / "layers").iterdir())


def test_layers_that_it_has_are_not_copied(site: Path, tmp_path: Path) -> None:
    files: archives.Files = {}
    more = archives.layer({"etc/three": "3"})
    entry = archives.named(archives.image(files, [archives.FIRST, archives.SECOND, more], "+gzip"), "top:1")
    store = Store(str(tmp_path / "own"), [str(site)])
    load(str(archives.write(archives.layout(files, [entry]), tmp_path / "top")), store)
    assert os.listdir(store.path("layers")) == [archives.digest(more) + ".tar"]
    assert len(os.listdir(store.path("blobs", "sha256"))) == 3  # the new layer, its manifest and config
    prune(store)
    with_it = resolve("top:1", Store(str(tmp_path / "own"), [str(site)]))
    with_it.open_tree().close()
    with pytest.raises(UfsError, match="not in the store"):
        resolve("top:1", Store(str(tmp_path / "own"), []))


def test_an_index_of_another_version_is_made_in_the_own_store(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    for index in (copy / "images").iterdir():
        index.write_bytes(b"of another version")
    before = written(copy)
    store = Store(str(tmp_path / "own"), [str(copy)])
    resolve("base:1", store).open_tree().close()
    assert len(os.listdir(store.path("images"))) == 1
    prune(store)
    assert len(os.listdir(store.path("images"))) == 1
    monkeypatch.setattr(loading, "rebuild", None)  # a second time nothing is made
    resolve("base:1", store).open_tree().close()
    assert written(copy) == before


def test_a_name_can_be_given_and_taken(site: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "own"), [str(site)])
    tag("base:1", "mine:1", store)
    assert [record.place for record in store.records()] == ["", str(site)]
    assert os.listdir(store.path("layers")) == []
    json.loads(Path(store.own.blob(store.own_records()[0].image)).read_text())
    resolve("mine:1", store).open_tree().close()
    assert remove(["mine:1"], store).names == ["docker.io/library/mine:1"]
    with pytest.raises(UfsError, match="which is only read"):
        remove(["base:1"], store)


def _damage(root: Path, how: str) -> Path:
    if how == "missing":
        return root / "nope"
    files = {"index.json": b"{", "version": b"7\n"}
    name = {"no document": "index.json", "another version": "version"}[how]
    damaged = Path(shutil.copytree(root, f"{root}-damaged"))
    (damaged / name).write_bytes(files[name])
    return damaged


@pytest.mark.parametrize("how", ["missing", "no document", "another version"])
def test_one_that_cannot_be_read_is_told_once_and_passed_over(
    site: Path, tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "own"), [str(_damage(site, how)), str(site)])
    for _ in range(3):
        assert [record.name for record in store.records()] == ["docker.io/library/base:1"]
    assert capfd.readouterr().err.count("is passed over") == 1
