"""Command lines in docker's words: what is read how, and what is said of words that are not here."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import click
import pytest

from launcher.cli import booleans, docker_words, main, options
from launcher.container import mounts
from launcher.errors import UfsError
from launcher.image import foreign
from tests.support.users import User

READ: list[tuple[str, dict[str, Any]]] = [
    ("-it", {"interactive": True, "terminal": True}),
    ("-it=false", {"interactive": True, "terminal": False}),
    ("--rm=true --tty=0 -i=F", {"remove": True, "terminal": False, "interactive": False}),
    ("--tty --tty=false", {"terminal": False}),
    ("-eA=1 -e=B=2 -e C --env=D=4 --env E=", {"env": ["A=1", "B=2", "C", "D=4", "E="]}),
    ("-iu me", {"interactive": True, "user": "me"}),
    ("-tu=me", {"terminal": True, "user": "me"}),
    ("-ifoo", {}),
    ("--name one --name=two", {"name": "two"}),
    ("--name --rm", {"name": "--rm", "remove": False}),
    ("--entrypoint=", {"entrypoint": ""}),
    ("-h box --", {"hostname": "box"}),
    ("--network host --net=host --privileged=false -d=false --sig-proxy --restart no --rm", {"remove": True}),
    ("--security-opt no-new-privileges --pull=never --cpus 0", {"security_opt": ["no-new-privileges"]}),
]


@pytest.mark.parametrize(("line", "found"), READ)
def test_options_are_read_as_docker_reads_them(line: str, found: dict[str, Any]) -> None:
    words = [*line.split(), "box", "-it", "--", "x"]
    if not found and line == "-ifoo":
        with pytest.raises(UfsError, match="no option -f"):
            options.parse(words)
        return
    parsed = options.parse(words)
    assert parsed is not None
    assert (parsed.image, parsed.words) == ("box", ["-it", "--", "x"])
    assert {key: parsed.values[key] for key in found} == found


def test_help_is_asked_for_before_the_image_only() -> None:
    assert options.parse(["-i", "--help", "box"]) is None
    assert options.parse(["box", "--help"]) is not None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "IMAGE is missing: ufs-run [OPTIONS] IMAGE"),
        ("--rm", "IMAGE is missing"),
        ("--name", "--name needs a value: --name NAME"),
        ("-h", "(help is --help)"),
        ("--rm=maybe box", "--rm=maybe: this has to be true or false"),
        ("--engine other box", "this has to be direct or pyfuse3"),
        ("-rm box", "no option -r (in -rm); did you mean --rm?"),
        ("--volumes a:/b box", "did you mean --volume?"),
        ("--envfile x box", "did you mean --env-file?"),
        ("--xyzzy box", "no option --xyzzy (see ufs-run --help)"),
        ("--network none box", "--network none: "),
        ("--memroy 3g box", "did you mean --memory?"),
        ("--privileged box", "--cap-add ALL gives all capabilities inside"),
        ("--sig-proxy=false box", "--sig-proxy false: signals always reach the command"),
        ("-a stdout box", "-a stdout: "),
    ],
)
def test_what_cannot_be_read_is_said(line: str, says: str) -> None:
    with pytest.raises(UfsError) as raised:
        options.parse(line.split())
    assert says in str(raised.value)
    assert raised.value.status == 125


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ps --all=true -q=1 --no-trunc=false", "ps --all -q"),
        ("ps -a --all=false", "ps"),
        ("rm --force=F -- --force=true", "rm -- --force=true"),
        ("exec -i=true -w --tty=true web prog --tty=true", "exec -i -w --tty=true web prog --tty=true"),
        ("images name=x --json=true", "images name=x --json"),
        ("run --rm=false box --rm=false", "run box --rm=false"),
    ],
)
def test_flags_of_every_command_take_true_and_false(line: str, found: str) -> None:
    name, *words = line.split()
    command = main.ufs.get_command(click.Context(main.ufs), name)
    assert command is not None
    assert [name, *booleans.rewritten(command, words)] == found.split()


def test_a_flag_that_is_neither_true_nor_false_is_told(root_user: User) -> None:
    done = root_user.run(["ufs", "ps", "--all=maybe"])
    assert (done.returncode, done.stderr) == (125, "ufs: --all=maybe: this has to be true or false\n")
    assert root_user.run(["ufs", "ps", "--all=true"], check=True).stderr == ""


def listed_by_podman(command: str, pattern: str) -> set[str]:
    shown = subprocess.run(["podman", *command.split()], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {name for names in re.findall(pattern, shown, re.MULTILINE) for name in names.split(", ")}


def test_every_option_of_podman_run_is_in_force_or_explained() -> None:
    """The other engine's own help is the list."""
    theirs = listed_by_podman("run --help", r"^ +((?:-\w, )?--[\w-]+)") - {"--help"}
    ours = {name for option in options.OPTIONS for name in option.names}
    rows = [name for word in docker_words.words() for name in word.names]
    assert len(theirs) > 100
    assert theirs - ours - set(rows) == set()
    assert ours & set(rows) == set(), "an option that is here now: take its row away"
    assert len(rows) == len(set(rows))


def test_every_command_of_podman_is_here_or_explained() -> None:
    theirs = listed_by_podman("--help", r"^  ([a-z-]+)  ")
    assert len(theirs) > 50
    assert theirs - main.COMMANDS.keys() - docker_words.COMMANDS.keys() == set()
    assert main.COMMANDS.keys() & docker_words.COMMANDS.keys() == set(), "a command that is here now: take its row away"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("docker://me/tool:1", "write me/tool:1, and ufs pull me/tool:1 to fetch it"),
        ("https://hub.docker.com/_/alpine?tab=tags", "if the image is alpine: ufs pull alpine"),
        ("https://hub.docker.com/r/me/tool/tags", "if the image is me/tool: ufs pull me/tool"),
        ("https://quay.io/repository/me/tool", "if the image is quay.io/me/tool: ufs pull quay.io/me/tool"),
        ("http://ghcr.io/me/tool/", "if the image is ghcr.io/me/tool: ufs pull ghcr.io/me/tool"),
        ("https://host/a/root.tar.gz", "curl -fLO https://host/a/root.tar.gz, then ufs load root.tar.gz"),
        ("oci-archive:./a.tar:name", "give the path alone: ./a.tar"),
        ("containers-storage:[overlay@/x+/y]box:1", "podman save -o image.tar box:1"),
        ("docker-daemon:box:1", "docker save -o image.tar box:1"),
        ("ftp://host/a.tar", "with the tool for ftp"),
    ],
)
def test_what_other_tools_call_an_image_is_explained(text: str, says: str) -> None:
    assert says in (foreign.explain(text) or "")


@pytest.mark.parametrize(
    "text", ["box", "box:1", "host:5000/box", "me/tool@sha256:" + "0" * 64, "./oci:x", "dir", "oci:"]
)
def test_a_name_is_no_foreign_reference(text: str) -> None:
    assert foreign.explain(text) is None


@pytest.mark.parametrize(
    ("options_", "read_only"),
    [("z,cached,rprivate", False), ("ro,Z,delegated", True), ("rw,consistent,private,rbind", False)],
)
def test_options_of_volumes_that_change_nothing_here(options_: str, read_only: bool) -> None:
    assert mounts.volume(f"/tmp:/x:{options_}").read_only == read_only


@pytest.mark.parametrize("option", ["rshared", "shared", "slave", "O", "nocopy", "copy", "bind", "rx"])
def test_options_of_volumes_that_are_refused(option: str) -> None:
    with pytest.raises(UfsError, match=rf"-v /tmp:/x:{option}: "):
        mounts.volume(f"/tmp:/x:{option}")
