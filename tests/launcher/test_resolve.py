"""What IMAGE on a command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import UfsError
from launcher.image.load import load
from launcher.image.resolve import resolve
from launcher.image.store import Store
from tests.launcher import archives
from tests.support.users import User


def store_of(tmp_path: Path, *names: str) -> Store:
    """A store of one image under these names."""
    made = Store(str(tmp_path / "store"))
    files: archives.Files = {}
    image = archives.image(files, [archives.FIRST], "+gzip")
    entries = [archives.named(image, name) for name in names]
    load(str(archives.write(archives.layout(files, entries), tmp_path / "layout")), made)
    return made


def test_a_short_name_finds_the_only_image_called_so(tmp_path: Path) -> None:
    store = store_of(tmp_path, "localhost/tools/box:1")
    assert resolve("box:1", store).name == "localhost/tools/box:1"
    with pytest.raises(UfsError, match="no image 'box'"):
        resolve("box", store)  # that is box:latest


def test_a_short_name_that_several_have_is_not_guessed(tmp_path: Path) -> None:
    store = store_of(tmp_path, "localhost/box:1", "example.org/box:1")
    with pytest.raises(UfsError, match="no image 'box:1'"):
        resolve("box:1", store)


def test_docker_hub_comes_before_a_short_name(tmp_path: Path) -> None:
    store = store_of(tmp_path, "localhost/box:1", "box:1")
    assert resolve("box:1", store).name == "docker.io/library/box:1"


def test_host_begins_at_home_and_where_the_user_is(user: User) -> None:
    """A program that works on a copy of somebody's files finds them where they are."""
    (user.temp / "here").mkdir(mode=0o755)
    user.own(user.temp / "here")
    seen = user.run(["sh", "-c", "cd tmp/here && ufs-run --rm host sh -c 'pwd; echo $HOME'"], check=True)
    assert seen.stdout == f"{user.temp}/here\n{user.home}\n"
