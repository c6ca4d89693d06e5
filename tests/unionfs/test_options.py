"""The options of an overlay mount program, as podman, buildah, containerd and mount(8) write them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from unionfs import mountflags
from unionfs.options import OptionError, parse
from unionfs.ownership import Mapping


@pytest.mark.parametrize(
    ("texts", "lower", "upper", "work"),
    [
        (["lowerdir=/a:/b,upperdir=/u,workdir=/w"], ["/a", "/b"], "/u", "/w"),
        (["lowerdir=/a", "upperdir=/u,workdir=/w,"], ["/a"], "/u", "/w"),
        ([",,lowerdir=/a,,upperdir=/u,workdir=/w,,volatile"], ["/a"], "/u", "/w"),
        ([r"lowerdir=/with\:colon:/b"], ["/with:colon", "/b"], None, None),
        ([r"lowerdir=/with\,comma:/b"], ["/with,comma", "/b"], None, None),
        (['lowerdir=/a,context="system_u:object_r:x:s0:c1,c2"'], ["/a"], None, None),
        (["lowerdir=/x", "lowerdir=/a"], ["/a"], None, None),
        (["lowerdir=/a,upperdir=/u,workdir=/w,private,dev,suid"], ["/a"], "/u", "/w"),
    ],
)
def test_directories_are_read(texts: list[str], lower: list[str], upper: str | None, work: str | None) -> None:
    options = parse(texts)
    assert (options.lower, options.upper, options.work) == (lower, upper, work)


ODD = ["plain", "a:1", "b,2", "c\\3", 'd"4', '"e"', "f 5\n6", "g\\", '\\:,"h', "i=7", "\\,j", "k\\\\8", "\udcff\u00fc"]
"""Names of directories."""


def _once(name: str) -> str:
    """As the kernel's overlayfs takes it."""
    return re.sub(r'[\\:,"]', r"\\\g<0>", name)


def _separators(name: str) -> str:
    """As buildah and careful users write it: what would part names, and a backslash that would take part in that."""
    return re.sub(r"[:,]|\\(?=[\\:,]|$)", r"\\\g<0>", name)


def _twice(name: str) -> str:
    return _once(_once(name))


@pytest.mark.parametrize("escape", [_once, _separators, _twice])
@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_directories_of_odd_names_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str, escape: Callable[[str], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", odd, "last"):
        os.makedirs(os.fsencode(name), exist_ok=True)
    for place in range(3):
        named = ["first", "last"]
        named.insert(place, odd)
        options = parse([f"lowerdir={':'.join(map(escape, named))},upperdir={escape(odd)},workdir={escape(odd)},ro"])
        assert (options.lower, options.upper, options.work) == (named, odd, odd)
        assert options.read_only


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\\b:c", ["a\\b", "c"]),
        ("a\\\\:c", ["a\\", "c"]),
        ("a\\\\:1", ["a:1"]),
        ("a\\:c:a\\:1", ["a\\", "c", "a:1"]),
        ('"q":c', ['"q"', "c"]),
        ('"q"', ['"q"']),
        ('"c:b,2"', ["c", "b,2"]),
        ("s\\040t", ["s t"]),
        ('c:q"x:c', ["c", 'q"x', "c"]),
        ("missing\\:1:c", ["missing:1", "c"]),
    ],
)
def test_of_several_readings_the_one_that_is_there_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a\\b", "c", '"q"', "b,2", "s t", 'q"x'):
        os.mkdir(name)
    os.mkdir("a\\" if "a\\" in names else "a:1")
    if "a:1" in names:
        os.makedirs("a:1", exist_ok=True)
    assert parse([f"lowerdir={text},ro"]).lower == names


def test_unknown_options_are_named_and_known_ones_are_not() -> None:
    options = parse(["lowerdir=/a,frobnicate,speed=9,nodev,noatime,fsname=x"])
    assert options.unknown == ["frobnicate", "speed=9"]


def test_id_maps_as_containers_storage_writes_them() -> None:
    options = parse(["lowerdir=/a,uidmapping=:0:1000:1:1:100000:65536,gidmapping=0:5:2"])
    assert options.uid_map == (Mapping(stored=0, shown=1000, length=1), Mapping(stored=1, shown=100000, length=65536))
    assert options.gid_map == ((0, 5, 2),)


@pytest.mark.parametrize("value", ["", "0:1", "0:1:x", "0:1:2:3"])
def test_id_maps_that_are_none(value: str) -> None:
    with pytest.raises(OptionError, match="uidmapping"):
        parse([f"lowerdir=/a,uidmapping={value}"])


def test_squashing() -> None:
    assert (parse(["lowerdir=/a,squash_to_root"]).squash_uid, parse(["lowerdir=/a"]).squash_uid) == (0, None)
    options = parse(["lowerdir=/a,squash_to_uid=7,squash_to_gid=8"])
    assert (options.squash_uid, options.squash_gid) == (7, 8)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "lowerdir"),
        ("upperdir=/u,workdir=/w", "lowerdir"),
        ("lowerdir=/a,upperdir=/u", "workdir"),
        ("lowerdir=/a,workdir=/w", "upperdir"),
        ("lowerdir=/a,squash_to_uid=me", "squash_to_uid=me"),
        ("lowerdir=/a,squash_to_gid=4294967296", "squash_to_gid=4294967296"),
    ],
)
def test_what_cannot_be_meant_is_named(text: str, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        parse([text])


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("0.5", 0.5), ("0", 0.0), (".25", 0.25)])
def test_timeout(text: str, seconds: float) -> None:
    assert parse([f"lowerdir=a,timeout={text}"]).timeout == seconds


@pytest.mark.parametrize("text", ["", ".", "-1", "soon", "inf", "1e3", "\u0661"])
def test_timeouts_that_make_no_sense(text: str) -> None:
    with pytest.raises(OptionError, match="timeout"):
        parse([f"lowerdir=a,timeout={text}"])


def test_flags_of_the_mount_in_their_order() -> None:
    flags = parse(["lowerdir=a,ro,nosuid,noexec,noatime", "suid,strictatime"]).flags
    assert flags.over(0) == mountflags.RDONLY | mountflags.NOEXEC | mountflags.STRICTATIME
    assert flags.over(mountflags.NOSUID | mountflags.NODEV | mountflags.NOATIME) == flags.over(0) | mountflags.NODEV
    assert parse(["lowerdir=a,users,exec"]).flags.over(0) == mountflags.NOSUID | mountflags.NODEV
    assert parse(["lowerdir=a,noexec,nodev,defaults"]).flags.over(mountflags.SYNCHRONOUS) == 0


@pytest.mark.parametrize("text", ["fsync=2", "noxattrs=yes", "redirect_dir=nofollow", "writeback=", "sync=-1"])
def test_switches_that_make_no_sense(text: str) -> None:
    with pytest.raises(OptionError, match=text):
        parse([f"lowerdir=a,{text}"])


def test_squashing_to_one_counts_more_than_to_root() -> None:
    assert parse(["lowerdir=a,squash_to_uid=7,squash_to_root"]).squash == (7, 0)
    assert parse(["lowerdir=a,squash_to_root,squash_to_gid=8"]).squash == (0, 8)


def test_options_of_others_are_no_reason_to_warn() -> None:
    options = parse(["lowerdir=a,x-systemd.automount,X-mount.mkdir,comment=why,_netdev,nofail,user_id=0,max_read=4096"])
    assert options.unknown == []
