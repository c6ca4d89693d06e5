"""Parts of the sandbox that can be looked at without a container."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from launcher.container import catalogue, names, settings
from launcher.container.removal import remove_tree
from launcher.errors import UfsError
from launcher.sandbox import idmap, seccomp, user
from launcher.sandbox.protocol import Channel, PeerGone

PASSWD = """root:x:0:0:root:/root:/bin/sh
broken line
bad:x:notanumber:0::/:/bin/sh
web:x:33:33:www:/var/www:/bin/false
33:x:44:44:a number as a name:/nm:/bin/false
"""
GROUP = "root:x:0:\nweb:x:33:\nlog:x:4:web,root\nbroken\nbad:x:x:web\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", user.User(0, 0, (0, 4), "/root")),
        (":", user.User(0, 0, (0, 4), "/root")),
        (":log", user.User(0, 4, (), "/root")),
        ("web", user.User(33, 33, (33, 4), "/var/www")),
        ("33", user.User(44, 44, (44,), "/nm")),  # a name wins over a number
        ("web:log", user.User(33, 4, (), "/var/www")),
        ("web:99", user.User(33, 99, (), "/var/www")),
        ("5000", user.User(5000, 0, (), "/")),
        ("5000:", user.User(5000, 0, (), "/")),
        ("web:", user.User(33, 33, (33, 4), "/var/www")),
        ("bad", None),
        ("web:nosuch", None),
        ("-1", None),
        ("4294967295", None),
        ("٣٣", None),
    ],
)
def test_user_lookup(text: str, expected: user.User | None) -> None:
    if expected is None:
        with pytest.raises(UfsError) as caught:
            user.resolve(text, PASSWD, GROUP)
        assert "\n" not in str(caught.value)
    else:
        assert user.resolve(text, PASSWD, GROUP) == expected


def evaluate(program: bytes, number: int, arch: int = 0xC000003E, arguments: tuple[int, ...] = ()) -> int:
    """Run a classic BPF program as the kernel would: the action for one system call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    lines = [struct.unpack_from("=HBBI", program, offset) for offset in range(0, len(program), 8)]
    position = accumulator = 0
    while True:
        code, if_true, if_false, value = lines[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return int(value)
        else:
            test = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            position += if_true if test else if_false


ALLOW, DONE, EPERM, ENOSYS = 0x7FFF0000, 0x50000, 0x50001, 0x50026


@pytest.mark.parametrize(
    ("number", "arguments", "plain", "pretending"),
    [
        (0, (), ALLOW, ALLOW),  # read
        (92, (), ALLOW, DONE),  # chown
        (260, (), ALLOW, DONE),  # fchownat
        (116, (), ALLOW, DONE),  # setgroups
        (133, (0, 0o020666, 0x103), ALLOW, DONE),  # mknod, character device
        (133, (0, 0o020666, 0), ALLOW, ALLOW),  # the one that needs no privilege
        (133, (0, 0o060666, 0x103), ALLOW, DONE),  # block device
        (133, (0, 0o060666, 0), ALLOW, DONE),
        (133, (0, 0o100666, 0), ALLOW, ALLOW),  # file
        (133, (0, 0o010666, 0), ALLOW, ALLOW),  # fifo
        (133, (0, 0o140666, 0), ALLOW, ALLOW),  # socket
        (259, (0, 0, 0o020600, 5), ALLOW, DONE),  # mknodat
        (259, (0, 0, 0o020600, 0), ALLOW, ALLOW),
        (250, (), EPERM, EPERM),  # keyctl
        (425, (), EPERM, EPERM),  # io_uring_setup
        (272, (), EPERM, EPERM),  # unshare
        (435, (), ENOSYS, ENOSYS),  # clone3
        (56, (0x11,), ALLOW, ALLOW),  # clone as fork does
        (56, (0x3D0F00,), ALLOW, ALLOW),  # clone as threads do
        (56, (0x10000011,), EPERM, EPERM),  # clone with CLONE_NEWUSER
        (16, (0, 0x5412), EPERM, EPERM),  # ioctl TIOCSTI
        (16, (0, 0x1_0000_5412), EPERM, EPERM),  # the same, disguised (CVE-2019-10063)
        (16, (0, 0x5401), ALLOW, ALLOW),  # TCGETS
        (0x40000000, (), ENOSYS, ENOSYS),  # x32
    ],
)
def test_seccomp_program(
    monkeypatch: pytest.MonkeyPatch, number: int, arguments: tuple[int, ...], plain: int, pretending: int
) -> None:
    monkeypatch.setattr(seccomp, "machine", lambda: "x86_64")
    kept: frozenset[int] = frozenset()
    assert evaluate(seccomp.program(kept, pretend=False), number, arguments=arguments) == plain
    assert evaluate(seccomp.program(kept, pretend=True), number, arguments=arguments) == pretending


def test_seccomp_of_other_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "machine", lambda: "aarch64")
    program = seccomp.program(frozenset(), pretend=True)
    assert evaluate(program, 54, arch=0xC00000B7) == DONE  # fchownat
    assert evaluate(program, 54, arch=0x40000028) == ENOSYS  # 32-bit arm
    assert evaluate(program, 97, arch=0xC00000B7) == EPERM  # unshare
    with_admin = seccomp.program(frozenset({21}), pretend=False)
    assert evaluate(with_admin, 97, arch=0xC00000B7) == ALLOW
    nested = seccomp.program(frozenset(), pretend=False, nested=True)
    assert [evaluate(nested, number, arch=0xC00000B7) for number in (97, 435, 219, 280)] == [
        ALLOW, ALLOW, ENOSYS, EPERM
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], False),
        (["no-new-privileges"], False),
        (["no-new-privileges=false"], True),
        (["no-new-privileges:false", "label=disable"], True),
        (["no-new-privileges:false", "no-new-privileges:true"], False),
        (["no-new-privileges=maybe"], None),
        (["seccomp=unconfined"], None),
        (["apparmor=mine"], None),
    ],
)
def test_security_options(options: list[str], expected: bool | None) -> None:
    if expected is not None:
        assert settings.new_privileges(options) is expected
        return
    with pytest.raises(UfsError, match="--nested" if "seccomp" in options[0] else "never applied"):
        settings.new_privileges(options)


def test_ranges_are_stacked(tmp_path: Path) -> None:
    table = tmp_path / "subuid"
    table.write_text("root:100000:10\nother:5:5\n0:300000:20\nroot:bad:1\nroot:9:0\n#x\n")
    found = idmap._subordinate(str(table), 0)
    assert found == [(100000, 10), (300000, 20)]
    assert idmap._stacked(7, found) == ((0, 7, 1), (1, 100000, 10), (11, 300000, 20))
    assert idmap._subordinate(str(tmp_path / "none"), 0) == []


def test_a_channel_tells_what_happened() -> None:
    one, two = Channel.pair("first", "second")
    one.send("hello", number=3)
    assert two.expect("hello").fields == {"number": 3}
    one.send("surprise")
    with pytest.raises(UfsError, match="the first sent 'surprise' where 'due' was due"):
        two.expect("due")
    one.fail("it broke", 126)
    with pytest.raises(UfsError, match="it broke") as caught:
        two.expect("due")
    assert caught.value.status == 126
    one.close()
    with pytest.raises(PeerGone):
        two.expect("due")
    with pytest.raises(PeerGone):
        two.send("hello")
    two.fail("nobody hears it")
    two.close()


@pytest.mark.parametrize("name", ["", "a", "-a", ".a", "a/b", "a b", "ä1", "x" * 129])
def test_bad_names(name: str) -> None:
    with pytest.raises(UfsError):
        names.checked(name)


def test_random_names_are_good_ones() -> None:
    proposals = names.proposals()
    assert len(set(proposals)) > 1
    assert all(names.checked(name) == name for name in proposals)


def test_remove_tree_of_depth(tmp_path: Path) -> None:
    """Deeper than PATH_MAX, than recursion and than descriptors go."""
    import os

    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(tmp_path)
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(str(top))
    assert os.listdir(tmp_path) == []
    remove_tree(str(top))


def test_no_store_has_no_containers(tmp_path: Path) -> None:
    assert catalogue.every(str(tmp_path)) == []
    with pytest.raises(UfsError, match="no container 'x'"):
        catalogue.find(str(tmp_path), "x")
