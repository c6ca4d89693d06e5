"""The options of `ufs-run` as one table, and the reader of its command lines.

Importing click takes a fifth of the time that `ufs-run IMAGE true` may take (docs/launching.md has the figures), so
command lines are read by `parse`, in the way of Docker's (github.com/spf13/pflag): `--name VALUE`, `--name=VALUE`,
`-n VALUE`, `-nVALUE`, `-n=VALUE`, several letters in one word, `=true` and `=false` for flags. Click lays the help out,
from the same table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.errors import UfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import click

_FAILED = 125

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
"""What a flag may be set to: strconv.ParseBool of Go."""


class Option(NamedTuple):
    """One option. `kind`: "flag", "text" (the last one counts) or "many"."""

    names: tuple[str, ...]
    key: str
    kind: str
    metavar: str
    help: str
    choices: tuple[str, ...] = ()


OPTIONS = (
    Option(("-d", "--detach"), "detach", "flag", "", "Leave it in the background and print its id."),
    Option(("--cidfile",), "cidfile", "text", "FILE", "Write the id to FILE, which must not be there."),
    Option(
        ("--pull",),
        "pull",
        "text",
        "WHEN",
        "Get the image: missing (if it is not in the store), always, never.",
        ("missing", "always", "never"),
    ),
    Option(("-l", "--label"), "label", "many", "K=V", "Set a label."),
    Option(("--stop-signal",), "stop_signal", "text", "SIGNAL", "Asks it to end; by default the image's, or TERM."),
    Option(("--stop-timeout",), "stop_timeout", "text", "SECONDS", "After these it is killed; by default 10."),
    Option(
        ("--log-driver",), "log_driver", "text", "NAME", "k8s-file (the default) records its output, none does not."
    ),
    Option(("--log-opt",), "log_opt", "many", "K=V", "max-size=10m: of one file of the log; max-file=3: so many."),
    Option(("--detach-keys",), "detach_keys", "text", "KEYS", "What leaves its terminal; by default ctrl-p,ctrl-q."),
    Option(
        ("--restart",),
        "restart",
        "text",
        "POLICY",
        "Start it again: on-failure[:N] (so often at most), always, unless-stopped; no (the default).",
    ),
    Option(("--health-cmd",), "health_cmd", "text", "COMMAND", "A shell command that says whether it is well."),
    Option(("--health-interval",), "health_interval", "text", "TIME", "Between two checks; by default 30s."),
    Option(("--health-timeout",), "health_timeout", "text", "TIME", "A check may take so long; by default 30s."),
    Option(("--health-retries",), "health_retries", "text", "N", "So many failures make it unhealthy; by default 3."),
    Option(("--health-start-period",), "health_start_period", "text", "TIME", "Before this failing does not count."),
    Option(("--health-start-interval",), "health_start_interval", "text", "TIME", "Between checks then; 5s."),
    Option(("--no-healthcheck",), "no_healthcheck", "flag", "", "Leave out the image's HEALTHCHECK."),
    Option(("--rm",), "remove", "flag", "", "Remove the container when it has ended."),
    Option(("-i", "--interactive"), "interactive", "flag", "", "Give the command this standard input."),
    Option(("-t", "--tty"), "terminal", "flag", "", "Give the command a terminal of its own."),
    Option(("--name",), "name", "text", "NAME", "Name of the container; by default a random one."),
    Option(("-e", "--env"), "env", "many", "K=V", "Set a variable; K alone passes on the one of this environment."),
    Option(("--env-file",), "env_file", "many", "FILE", "Set variables from a file of lines K=V."),
    Option(
        ("-v", "--volume"),
        "volume",
        "many",
        "SRC:DST[:ro]",
        "Show the host's SRC, a path, or the volume SRC at DST; DST alone: a volume of its own.",
    ),
    Option(
        ("--mount",), "mount", "many", "K=V,...", "The same in words: type=bind|volume|tmpfs,src=SRC,dst=DST,readonly."
    ),
    Option(("--tmpfs",), "tmpfs", "many", "DST[:OPTIONS]", "An empty file system in memory; size=64m, mode=1777."),
    Option(
        ("--volumes-from",), "volumes_from", "many", "CONTAINER[:ro]", "What that container shows by -v and --mount."
    ),
    Option(("-w", "--workdir"), "workdir", "text", "DIR", "Working directory, made if missing."),
    Option(("-u", "--user"), "user", "text", "USER[:GROUP]", "Run as this user, by name or number."),
    Option(("--entrypoint",), "entrypoint", "text", "PROGRAM", "In place of the image's Entrypoint; '' for none."),
    Option(("--hostname", "-h"), "hostname", "text", "NAME", "Host name in the container; by default its id."),
    Option(("--read-only",), "read_only", "flag", "", "The root cannot be written; /tmp, /run, /var/tmp can."),
    Option(("--init",), "init", "flag", "", "Run a process 1 that reaps, above the command."),
    Option(
        ("--platform",), "platform", "text", "OS/ARCH[/VARIANT]", "Pull the image for it, and refuse one for another."
    ),
    Option(("--cap-add",), "cap_add", "many", "CAP", "Keep a further capability; ALL for every one."),
    Option(("--cap-drop",), "cap_drop", "many", "CAP", "Take a capability away; ALL for every one."),
    Option(("--security-opt",), "security_opt", "many", "OPTION", "no-new-privileges=false: for sudo, su and ping."),
    Option(("--nested",), "nested", "flag", "", "Let ufs-run, podman and their like work in it."),
    Option(
        ("--engine",),
        "engine",
        "text",
        "NAME",
        "What serves the file system: direct (the default) or pyfuse3.",
        ("direct", "pyfuse3"),
    ),
)

EXAMPLES = """\b
Examples:
  ufs-run --rm host ls -la /
  ufs-run --rm -it debian:12 bash
  ufs-run --rm -v ./src:/src:ro -w /src -e CC=gcc build.tar make
  ufs-run --name db -u postgres postgres:16
"""

STATUS = """The exit status is the command's, or 128+N when signal N ended it; 125 when the launcher failed, 126 when
the command cannot be executed, 127 when it is not found."""


class Parsed(NamedTuple):
    """A command line: option values by key (False, None or [] where not given), IMAGE and the words after it."""

    values: dict[str, Any]
    image: str
    words: list[str]


def parse(arguments: list[str], called: str = "ufs-run") -> Parsed | None:
    """Read a command line; None where it asks for help. Raises `UfsError` (status 125) for what is no command line.

    `called` is what the user calls the command, for the errors.
    """
    by_name = {name: option for option in OPTIONS for name in option.names}
    values = {option.key: _absent(option) for option in OPTIONS}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word == "--help":
            return None
        for name, attached in _split(word, by_name):
            option = by_name.get(name)
            if option is None:
                _pass_over(name, attached, rest, word, called)
            else:
                _take(option, name, attached, rest, values)
    if not rest:
        raise UfsError(f"IMAGE is missing: {called} [OPTIONS] IMAGE [COMMAND [ARG]...] (see {called} --help)", _FAILED)
    return Parsed(values, rest[0], rest[1:])


def _split(word: str, by_name: dict[str, Option]) -> Iterator[tuple[str, str | None]]:
    """The options in one word, with the value that is attached to it: `-it`, `-eK=V`, `-e=K=V`, `--name=x`."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        yield name, value if equals else None
        return
    letters = word[1:]
    while letters:
        name, letters = "-" + letters[0], letters[1:]
        option = by_name.get(name)
        if letters.startswith("="):
            yield name, letters[1:]
            return
        if letters and option is not None and option.kind != "flag":
            yield name, letters
            return
        yield name, None


def _take(option: Option, name: str, attached: str | None, rest: list[str], values: dict[str, Any]) -> None:
    if option.kind == "flag":
        values[option.key] = attached is None or boolean(name, attached)
        return
    value = _value(name, attached, rest, option.metavar)
    if option.choices and value not in option.choices:
        raise UfsError(f"{name} {value}: this has to be {' or '.join(option.choices)}", _FAILED)
    if option.kind == "many":
        values[option.key].append(value)
    else:
        values[option.key] = value


def _value(name: str, attached: str | None, rest: list[str], metavar: str) -> str:
    if attached is not None:
        return attached
    if not rest:
        raise UfsError(f"{name} needs a value: {name} {metavar} (help is --help)", _FAILED)
    return rest.pop(0)


def boolean(name: str, value: str) -> bool:
    """What a flag is set to by NAME=VALUE."""
    if value not in _TRUE + _FALSE:
        raise UfsError(f"{name}={value}: this has to be true or false", _FAILED)
    return value in _TRUE


def _pass_over(name: str, attached: str | None, rest: list[str], word: str, called: str) -> None:
    """Accept an option of Docker's that says what is so anyway; `UfsError` for every other, with what to do."""
    from launcher.cli import docker_words

    found = docker_words.find(name)
    if found is None:
        raise UfsError(f"no option {name}{_nearest(name, word)} (see {called} --help)", _FAILED)
    if found.flag:
        value = "true" if attached is None or boolean(name, attached) else "false"
    else:
        value = _value(name, attached, rest, "VALUE")
    if value not in found.in_force:
        given = name if found.flag and attached is None else f"{name} {value}"
        raise UfsError(f"{given}: {found.says}", _FAILED)


def _nearest(name: str, word: str) -> str:
    """A hint at what was meant, where something is near: two dashes for one, or another spelling."""
    import difflib

    from launcher.cli import docker_words

    names = [one for option in OPTIONS for one in option.names]
    names += [one for row in docker_words.words() for one in row.names]
    meant = "-" + word.partition("=")[0]
    if not word.startswith("--") and meant in names:
        return f" (in {word}); did you mean {meant}?"
    near = difflib.get_close_matches(name, [one for one in names if one.startswith("--")], 1, 0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _absent(option: Option) -> Any:
    return {"flag": False, "text": None, "many": []}[option.kind]


def command(name: str, run: Callable[[Parsed], int]) -> click.Command:
    """The same table as a click command, which ends with the status that `run` returns."""
    import click

    class Command(click.Command):
        """Reads its words as `parse` does; click has the help and the completion."""

        def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
            if ctx.resilient_parsing:  # completion of a line that is not written yet
                return super().parse_args(ctx, args)
            parsed = parse(args, ctx.command_path)
            if parsed is None:
                return super().parse_args(ctx, ["--help"])
            ctx.params["parsed"] = parsed
            return []

    def callback(parsed: Parsed) -> None:
        raise SystemExit(run(parsed))

    parameters: list[click.Parameter] = [_option(option) for option in OPTIONS]
    parameters.append(click.Argument(["image"], metavar="IMAGE"))
    parameters.append(click.Argument(["words"], metavar="[COMMAND [ARG]...]", nargs=-1, type=click.UNPROCESSED))
    return Command(
        name,
        callback=callback,
        params=parameters,
        help="Run a command in IMAGE: a stored image, an archive or OCI layout by its path, or `host`, a copy-on-write "
        f"view of this machine. Options stop at IMAGE.\n\n{EXAMPLES}\n\n{STATUS}",
        context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]},
    )


def _option(option: Option) -> click.Option:
    import click

    names = [*option.names, option.key]
    if option.kind == "flag":
        return click.Option(names, is_flag=True, help=option.help)
    return click.Option(
        names,
        multiple=option.kind == "many",
        metavar=option.metavar,
        help=option.help,
        type=click.Choice(option.choices) if option.choices else click.STRING,
    )
