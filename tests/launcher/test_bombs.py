"""Small inputs that are large, endless or contradict themselves: one line that says what to do, a store as before."""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.errors import UfsError
from launcher.image import limits
from launcher.image.load import load
from launcher.image.resolve import resolve
from launcher.image.store import Store
from tests.launcher import archives
from tests.launcher.archives import Files
from tests.launcher.test_load_hostile import refused, store
from tests.support.users import User

__all__ = ["store"]

ZEROS = archives.layer({"zeros": "\0" * (5 << 20)})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stream may unpack to, at the scale of a test."""
    monkeypatch.setattr(limits, "FREE", 1 << 20)


def docker_layer(data: bytes) -> Files:
    return archives.docker(last=ZEROS) | {"b/layer.tar": data}


def packed_layer(compression: str) -> Files:
    return docker_layer(archives.WHOLE[compression](ZEROS))


def nested(deep: int, entry: Callable[[Files], dict[str, object]]) -> Files:
    files: Files = {}
    one = entry(files)
    for _ in range(deep):
        document = archives.dumps({"schemaVersion": 2, "mediaType": archives.INDEX_TYPE, "manifests": [one]})
        one = archives.blob(files, document, archives.INDEX_TYPE)
    return archives.layout(files, [archives.named(one, "deep:1")])


def box(files: Files) -> dict[str, object]:
    return archives.image(files, [archives.FIRST])


def many_layers(count: int) -> Files:
    data = archives.config([])
    diff_ids = ["sha256:" + archives.digest(archives.FIRST)] * count
    data = archives.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}})
    entry = {"Config": "c.json", "RepoTags": ["many:1"], "Layers": ["a/layer.tar"] * count}
    return {"c.json": data, "a/layer.tar": archives.FIRST, "manifest.json": archives.dumps([entry])}


def huge_manifest() -> Files:
    files: Files = {}
    one = archives.blob(files, b" " * (100 << 20), archives.MANIFEST_TYPE)
    return archives.layout(files, [archives.named(one, "huge:1")])


def members(*made: tuple[bytes, str, dict[str, str]]) -> Files:
    """A layout of one layer: (type, link, PAX records) of members a, b, c ..."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (kind, link, records) in zip("abcdef", made, strict=False):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.pax_headers = kind, link, records
            tar.addfile(info)
    files: Files = {}
    return archives.layout(files, [archives.image(files, [out.getvalue()])])


LIMITED = "unpacks to more than .* bytes from .*UFS_UNPACK_LIMIT"
REG, LNK = tarfile.REGTYPE, tarfile.LNKTYPE
BOMBS: dict[str, tuple[Callable[[], Files], str]] = {
    **{f"a layer, {name}": (functools.partial(packed_layer, name), LIMITED) for name in archives.WHOLE},
    "a layer of many small gzip members": (
        lambda: docker_layer(b"".join(gzip.compress(ZEROS[at : at + 65536]) for at in range(0, len(ZEROS), 65536))),
        "unpacks to more than",
    ),
    "100,000 layers": (lambda: many_layers(100_000), "limit for a JSON document|at most 1000 layers"),
    "10,000 layers": (lambda: many_layers(10_000), "at most 1000 layers, this one 10000"),
    "indexes in indexes": (lambda: nested(60, box), "nested more than 4 deep"),
    "an empty index in an index": (lambda: nested(2, lambda files: archives.blob(
        files, b'{"schemaVersion": 2, "manifests": []}', archives.INDEX_TYPE)), "has no image for"),
    "a manifest of 100 MB": (huge_manifest, "104857600 bytes, the limit for a JSON document"),
    "hard links in a circle": (lambda: members((LNK, "b", {}), (LNK, "a", {})), "member 'a'.*'b'.*not loaded"),
    "a size that the header contradicts": (lambda: members((REG, "", {"size": "9000"})), "cut in its content|damaged"),
    "a time and a size of no numbers": (lambda: members((REG, "", {"mtime": "1;2"})), "is not a number"),
    "a link of a record": (lambda: members((LNK, "b", {"linkpath": "../../etc/shadow"})), "hard link to nothing: '../"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_is_refused_and_leaves_the_store(store: Store, tmp_path: Path, case: str) -> None:
    make, message = BOMBS[case]
    (tmp_path / "image.tar").write_bytes(archives.tar(make()))
    refused(store, tmp_path / "image.tar", message)


@pytest.mark.parametrize("whole", archives.WHOLE)
def test_an_archive_that_is_a_bomb_as_a_whole(store: Store, tmp_path: Path, whole: str) -> None:
    (tmp_path / "image.tar").write_bytes(archives.WHOLE[whole](archives.tar(docker_layer(ZEROS))))
    refused(store, tmp_path / "image.tar", "unpacks to more than")


def test_the_limit_can_be_raised_and_lowered(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(archives.tar(docker_layer(gzip.compress(ZEROS))))
    for wrong in ("much", "-1", "10 GG"):
        monkeypatch.setenv(limits.VARIABLE, wrong)
        refused(store, path, f"{limits.VARIABLE}={wrong}: give a number of bytes")
    monkeypatch.setenv(limits.VARIABLE, "5m")
    refused(store, path, "unpacks to more than 5242880 bytes")
    monkeypatch.setenv(limits.VARIABLE, "6MiB")
    load(str(path), store)
    resolve("box:1", store).open_tree().close()


def test_honest_content_of_any_size_passes(store: Store, tmp_path: Path) -> None:
    """Text, which compresses by some tens, and zeros below what is free."""
    text = archives.layer({"text": "".join(f"a line of a log, number {number}\n" for number in range(200_000))})
    assert len(text) > 5 * limits.FREE
    (tmp_path / "image.tar").write_bytes(
        archives.tar(archives.docker(last=text) | {"b/layer.tar": gzip.compress(text)})
    )
    load(str(tmp_path / "image.tar"), store)


def test_an_entry_of_another_tool_with_a_layer_too_few(store: Store, tmp_path: Path) -> None:
    files: Files = {}
    entry = archives.image(files, [archives.FIRST, archives.SECOND], "", lambda manifest: manifest["layers"].pop())
    top = archives.dumps({"schemaVersion": 2, "manifests": [archives.named(entry, "few:1")]})
    other = Store(str(tmp_path / "other"), [])
    archives.write(archives.layout(files, []) | {"index.json": top}, Path(other.root))
    with pytest.raises(UfsError, match="2 diff ids for 1 layers"):
        resolve("few:1", other)


EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\tcolumn\nline"


@pytest.mark.only_root
def test_no_listing_lets_an_image_speak_to_the_terminal(root_user: User, tmp_path: Path) -> None:
    files: Files = {}
    layer = archives.layer({f"dir/{EVIL.replace('/', '')}": "1"}, {"link": EVIL})
    more = {
        "created": EVIL,
        "architecture": EVIL,
        "history": [{"created": EVIL, "created_by": EVIL, "comment": EVIL}],
        "config": {"Cmd": [EVIL], "Labels": {EVIL: EVIL}, "Env": [f"A={EVIL}"], "User": EVIL},
    }
    entry = archives.named(archives.image(files, [layer], **more), "evil:1")
    path = tmp_path / "image.tar"
    path.write_bytes(archives.tar(archives.layout(files, [entry])))
    path.chmod(0o644)
    fields = "{{.CreatedBy}} {{.Comment}} {{.CreatedAt}}"
    history = ["history", "--no-trunc", "evil:1", "--format"]
    commands: list[list[object]] = [
        ["load", path], ["images"], ["images", "--json"], ["images", "--format", "json"],
        ["images", "--format", "{{.Platform}} {{.CreatedAt}}"], ["history", "evil:1"], ["history", "--json", "evil:1"],
        [*history, "json"], [*history, fields], [*history, f"table {fields}"],
        ["inspect", "--format", "{{json .Config}}", "evil:1"],
        ["layers", "evil:1"], ["inspect", "evil:1"],
        ["cat", f"evil:1:/{EVIL}"], ["find", f"evil:1:/{EVIL}"], ["images", EVIL], ["rmi", EVIL],
        ["images", "--filter", f"label={EVIL}"], ["images", "--filter", EVIL], ["fsck"], ["df"], ["create", "evil:1"],
        ["ps", "-a"], ["ps", "-a", "--format", "{{.Command}} {{.Labels}}"], ["ps", "-a", "--format", "json"],
    ]  # fmt: skip
    for command in commands:
        done = root_user.run(["ufs", *command])
        said = done.stdout + done.stderr
        assert not any(sign in said for sign in "\x1b\x07\x9b\u202e"), (command, said)
        assert done.stderr.count("\n") <= 1, command
    root_user.env["NO_COLOR"] = "1"
    # On a terminal: in a pipe they give bytes, as ls(1) and find(1).
    for command in ("ls -l evil:1:/dir", "ls -lR evil:1", "find evil:1"):
        done = root_user.run(["script", "-qec", f"{root_user.bin}/ufs {command}", "/dev/null"], check=True)
        assert not any(sign in done.stdout for sign in "\x1b\x07\x9b\u202e"), (command, done.stdout)
        assert "gnp.exe" in done.stdout
