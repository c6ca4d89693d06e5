"""The options of `ufs-run` as one table, read in two ways.

Importing click takes a fifth of the time that `ufs-run IMAGE true` may take (docs/launching.md has the figures), so
well-formed command lines are read by `parse` here. Everything else, --help and every error, is left to the click
command that `command` makes of the same table; the tests compare the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import click


class Option(NamedTuple):
    """One option. `kind`: "flag", "text" (the last one counts) or "many"."""

    names: tuple[str, ...]
    key: str
    kind: str
    metavar: str
    help: str
    choices: tuple[str, ...] = ()


OPTIONS = (
    Option(("--rm",), "remove", "flag", "", "Remove the container when it has ended."),
    Option(("-i", "--interactive"), "interactive", "flag", "", "Give the command this standard input."),
    Option(("-t", "--tty"), "terminal", "flag", "", "Give the command a terminal of its own."),
    Option(("--name",), "name", "text", "NAME", "Name of the container; by default a random one."),
    Option(("-e", "--env"), "env", "many", "K=V", "Set a variable; K alone passes on the one of this environment."),
    Option(("--env-file",), "env_file", "many", "FILE", "Set variables from a file of lines K=V."),
    Option(("-v", "--volume"), "volume", "many", "SRC:DST[:ro]", "Show the host's SRC at DST."),
    Option(("-w", "--workdir"), "workdir", "text", "DIR", "Working directory, made if missing."),
    Option(("-u", "--user"), "user", "text", "USER[:GROUP]", "Run as this user, by name or number."),
    Option(("--entrypoint",), "entrypoint", "text", "PROGRAM", "In place of the image's Entrypoint; '' for none."),
    Option(("--hostname", "-h"), "hostname", "text", "NAME", "Host name in the container; by default its id."),
    Option(("--read-only",), "read_only", "flag", "", "The root cannot be written; /tmp, /run, /var/tmp can."),
    Option(("--init",), "init", "flag", "", "Run a process 1 that reaps, above the command."),
    Option(("--cap-add",), "cap_add", "many", "CAP", "Keep a further capability; ALL for every one."),
    Option(("--cap-drop",), "cap_drop", "many", "CAP", "Take a capability away; ALL for every one."),
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


def parse(arguments: list[str]) -> Parsed | None:
    """Read a well-formed command line; None for everything that needs an explanation (`command` gives it)."""
    by_name = {name: option for option in OPTIONS for name in option.names}
    values: dict[str, Any] = {option.key: _absent(option) for option in OPTIONS}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        for option, value in _split(word, rest, by_name):
            if option is None or (option.choices and value not in option.choices):
                return None
            if option.kind == "many":
                values[option.key].append(value)
            else:
                values[option.key] = value
    if not rest:
        return None
    return Parsed(values, rest[0], rest[1:])


def _split(word: str, rest: list[str], by_name: dict[str, Option]) -> list[tuple[Option | None, Any]]:
    """The options in one word, `-it` or `-eK=V` or `--name=x`; an option of None says "not understood"."""
    bad: list[tuple[Option | None, Any]] = [(None, None)]
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        option = by_name.get(name)
        if option is None or (option.kind == "flag" and equals):
            return bad
        if option.kind == "flag":
            return [(option, True)]
        if equals:
            return [(option, value)]
        return [(option, rest.pop(0))] if rest else bad
    found: list[tuple[Option | None, Any]] = []
    letters = word[1:]
    while letters:
        option, letters = by_name.get("-" + letters[0]), letters[1:]
        if option is None:
            return bad
        if option.kind == "flag":
            found.append((option, True))
            continue
        if not letters and not rest:
            return bad
        found.append((option, letters or rest.pop(0)))
        break
    return found


def _absent(option: Option) -> Any:
    return {"flag": False, "text": None, "many": []}[option.kind]


def command(name: str, run: Callable[[Parsed], int]) -> click.Command:
    """The same table as a click command, which ends with the status that `run` returns."""
    import click

    def callback(image: str, words: tuple[str, ...], **values: Any) -> None:
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        raise SystemExit(run(Parsed(plain, image, list(words))))

    parameters: list[click.Parameter] = [_option(option) for option in OPTIONS]
    parameters.append(click.Argument(["image"], metavar="IMAGE"))
    parameters.append(click.Argument(["words"], metavar="[COMMAND [ARG]...]", nargs=-1, type=click.UNPROCESSED))
    return click.Command(
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
