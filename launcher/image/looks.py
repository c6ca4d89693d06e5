"""What a file or directory that is no image looks like, and what to do with it."""

from __future__ import annotations

_HEADS = (
    (b"hsqs", "a squashfs file system; mount it and give ufs-mount the directory"),
    (b"\x7fELF", "a program, not an image"),
    (b"QFI\xfb", "a disk of a virtual machine, which has a kernel of its own: qemu runs it"),
    (b"!<arch>\ndebian-binary", "a Debian package"),
    (b"version https://git-lfs", "a pointer of Git LFS: git lfs pull fetches the file itself"),
)
_SIF = b"SIF_MAGIC"  # after the line that starts its program, Singularity Image Format
_PAGE = (b"<!doctype html", b"<html", b"<?xml")
_OF_A_ROOT = {"bin", "boot", "dev", "etc", "home", "lib", "opt", "proc", "root", "sbin", "sys", "tmp", "usr", "var"}
_RECIPES = {"Dockerfile", "Containerfile"}


def file(head: bytes) -> str | None:
    """What a file with these first bytes looks like; None for what nobody would take for an image."""
    for magic, meaning in _HEADS:
        if head.startswith(magic):
            return meaning
    text = head.lstrip().lower()
    if _SIF in head[:64]:
        return "an image of Singularity; give it the image that it was built from"
    if text.startswith(_PAGE):
        return "a web page: the download went wrong, look into it"
    if text.startswith((b"{", b"[")):
        return "JSON; of a layout or dir: give the directory"
    return None


def members(top: set[str], label: str, is_directory: bool) -> str | None:
    """What an archive or directory with these names at its top looks like."""
    if "repositories" in top:
        return "of Docker before 1.10; docker load and docker save it with a current version"
    if _RECIPES & top:
        return f"what an image is built from: podman build -t NAME {label}, then podman save -o image.tar NAME"
    if len(top & _OF_A_ROOT) > 3:
        make = f"tar -C {label} -c . | podman import - NAME" if is_directory else f"podman import {label} NAME"
        return (
            "a root file system, as docker export writes it, not an image: use docker save, or "
            f"make an image of it: {make}, podman save -o image.tar NAME, ufs load image.tar"
        )
    return None
