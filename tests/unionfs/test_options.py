"""The options of an overlay mount program, as podman, buildah, containerd and mount(8) write them."""

from __future__ import annotations

import pytest

from unionfs.options import OptionError, parse


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


def test_unknown_options_are_named_and_known_ones_are_not() -> None:
    options = parse(["lowerdir=/a,frobnicate,speed=9,nodev,noatime,fsname=x"])
    assert options.unknown == ["frobnicate", "speed=9"]


def test_id_maps_as_containers_storage_writes_them() -> None:
    options = parse(["lowerdir=/a,uidmapping=:0:1000:1:1:100000:65536,gidmapping=0:5:2"])
    assert options.uid_map == ((0, 1000, 1), (1, 100000, 65536))
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
