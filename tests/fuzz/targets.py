"""What is fuzzed: each target takes any bytes and ends well, or with the one error that its callers know.

Whatever else comes out of a target, or a sentence that is not one printable line, is a finding.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.errors import UfsError, printable
from launcher.image import archive, oci, reference, typed
from launcher.image.place import Place
from launcher.image.source import TarSource
from launcher.image.store import Store
from launcher.registry import challenge
from unionfs.image.compiler import compile_image
from unionfs.image.errors import LayerError
from unionfs.image.tree import CompiledImage

BLOCK = 512
_MAGIC, _SUM = slice(257, 262), slice(148, 156)


def layer(data: bytes) -> None:
    """The compiler takes a tar as a layer over another or refuses it; what it wrote can be read to its last byte."""
    with _file(BASE) as below, _file(sealed(data)) as path:
        index = io.BytesIO()
        try:
            compile_image([below, path], index)
        except LayerError as error:
            _sentence(error)
            return
        with _file(index.getvalue()) as compiled, CompiledImage(compiled, [below, path]) as tree:
            _walk(tree)


def document(data: bytes) -> None:
    """JSON of an image, taken for each of its documents."""
    for parse in (oci.index, oci.manifest, oci.config, oci.history, _either):
        try:
            parse(typed.load(data, "it"), "it")
        except typed.BadDocument as error:
            _sentence(error)


def entries(data: bytes) -> None:
    """index.json of a store: one entry hides no other, and only what is no index at all is refused."""
    try:
        listed = oci.entries(typed.load(data, "it"), "it")
    except typed.BadDocument:
        return
    store = _Store(listed)
    records, others = store.survey()
    named = [record for record in records if record.name]
    assert len({record.name for record in named}) == len(named)
    for record in records:
        assert oci.descriptor(record.descriptor().document(), "it").digest
    assert len(records) + len(others) <= len(listed)


def source(data: bytes) -> None:
    """A tar as an image archive."""
    with _file(sealed(data)) as path, open(path, "rb") as file:
        try:
            found = archive.images(TarSource(file.fileno(), "it"), None)
        except UfsError as error:
            _sentence(error)
            return
        for image in found:
            assert len(image.layers) == len(image.config.diff_ids)


def words(data: bytes) -> None:
    """Names of images, and what a registry asks for."""
    text = data.decode("utf-8", "surrogateescape")
    challenge.parse(text)
    try:
        named = reference.parse(text)
    except UfsError as error:
        _sentence(error, quoted=True)
        return
    assert reference.parse(str(named)) == named
    assert reference.parse(named.familiar) == named


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function for function in (layer, document, entries, source, words)
}


def sealed(data: bytes) -> bytes:
    """A tar whose headers have right checksums: or else nothing behind the first changed byte were ever reached."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - BLOCK + 1, BLOCK):
        header = blocks[at : at + BLOCK]
        if header[_MAGIC] == b"ustar":
            header[_SUM] = b" " * 8
            header[_SUM] = b"%06o\0 " % sum(header)
            blocks[at : at + BLOCK] = header
    return bytes(blocks)


def _either(value: object, what: str) -> None:
    oci.manifest_type("", value) if not oci.is_index("", value, what) else oci.index(value, what)


def _walk(tree: CompiledImage) -> None:
    todo, seen = [1], {1}
    while todo:
        row = todo.pop()
        for entry in tree.entries(row):
            assert tree.lookup(row, entry.name) == entry.node
            if entry.node not in seen:
                seen.add(entry.node)
                if entry.type == stat.S_IFDIR >> 12:
                    todo.append(entry.node)
                else:
                    _read(tree, entry.node, entry.type << 12)


def _read(tree: CompiledImage, row: int, kind: int) -> None:
    tree.xattrs(row)
    if kind == stat.S_IFLNK:
        assert tree.readlink(row)
    elif kind == stat.S_IFREG:
        size = int.from_bytes(tree.attr(row)[8:16], "little")
        for at in (0, size // 2, max(0, size - 1)):
            if at < size:
                fd, start, length = tree.locate(row, at, size - at)
                assert 0 < length <= size - at
                assert fd < 0 or start + min(length, 1) <= os.fstat(fd).st_size


def _sentence(error: Exception, quoted: bool = False) -> None:
    text = printable(str(error)) if quoted else str(error)
    assert text
    assert "\n" not in text, text


@contextmanager
def _file(data: bytes) -> Iterator[str]:
    """A path of a file in memory."""
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


class _Place(Place):
    def __init__(self, listed: list[object]) -> None:
        super().__init__("/nonexistent")
        self._listed = listed

    def entries(self) -> list[object]:
        return self._listed


class _Store(Store):
    """A store of which only index.json is there."""

    def __init__(self, listed: list[object]) -> None:
        super().__init__("/nonexistent", [])
        self.own = _Place(listed)


CORPUS = Path(__file__).parent / "corpus"


def seeds(target: str) -> list[Path]:
    """The files of a target's corpus: beginnings for the search, and what it has found once."""
    return sorted((CORPUS / target).iterdir())


BASE = (CORPUS / "layer" / "base.tar").read_bytes()
