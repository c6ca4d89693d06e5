"""The `ufs` command. A family of sub-commands is a file beside this one and a line for each in `COMMANDS`."""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

from launcher.errors import UfsError, complain
from unionfs import __version__, inherited
from unionfs.commandline import OutputClosed, end_unread, output_may_close

COMMANDS = {
    "attach": "launcher.cli.execute:attach",
    "cat": "launcher.cli.inside:cat",
    "commit": "launcher.cli.commit:commit",
    "container": "launcher.cli.container:container",
    "cp": "launcher.cli.copy:cp",
    "create": "launcher.cli.run:create_command",
    "df": "launcher.cli.store:df",
    "diff": "launcher.cli.containers:diff",
    "exec": "launcher.cli.execute:exec_",
    "export": "launcher.cli.commit:export",
    "find": "launcher.cli.inside:find",
    "fsck": "launcher.cli.store:fsck",
    "history": "launcher.cli.store:history",
    "images": "launcher.cli.imagelist:images",
    "import": "launcher.cli.commit:import_",
    "inspect": "launcher.cli.inspect:inspect",
    "kill": "launcher.cli.lifecycle:kill",
    "layers": "launcher.cli.inside:layers",
    "load": "launcher.cli.images:load",
    "login": "launcher.cli.registries:login",
    "logout": "launcher.cli.registries:logout",
    "logs": "launcher.cli.logs:logs",
    "ls": "launcher.cli.inside:ls",
    "mount": "launcher.cli.mount:mount",
    "pause": "launcher.cli.lifecycle:pause",
    "port": "launcher.cli.inspect:port",
    "prune": "launcher.cli.images:prune",
    "ps": "launcher.cli.ps:ps",
    "pull": "launcher.cli.registries:pull",
    "push": "launcher.cli.registries:push",
    "rename": "launcher.cli.lifecycle:rename",
    "restart": "launcher.cli.lifecycle:restart",
    "rm": "launcher.cli.lifecycle:rm",
    "rmi": "launcher.cli.images:rmi",
    "run": "launcher.cli.run:command",
    "save": "launcher.cli.store:save",
    "search": "launcher.cli.registries:search",
    "start": "launcher.cli.lifecycle:start",
    "stats": "launcher.cli.stats:stats",
    "stop": "launcher.cli.lifecycle:stop",
    "tag": "launcher.cli.store:tag",
    "top": "launcher.cli.inspect:top",
    "umount": "launcher.cli.mount:umount",
    "unpause": "launcher.cli.lifecycle:unpause",
    "update": "launcher.cli.lifecycle:update",
    "volume": "launcher.cli.volume:volume",
    "wait": "launcher.cli.lifecycle:wait",
}
"""Name of a sub-command to module and attribute; imported when it is called."""

EPILOG = """\b
Examples:
  ufs pull alpine               get an image from its registry (run does it, too)
  ufs load alpine.tar           add what docker save or podman save wrote
  ufs run -d --name web nginx   in the background; ufs logs, exec, stop, rm
  ufs run --rm -it alpine sh    a shell in an image (ufs-run is the same, and starts quicker)
  ufs mount alpine /tmp/alpine  browse an image; ufs umount /tmp/alpine ends it

\b
Images are kept in $UFS_ROOT, by default ~/.local/share/ufs; more are found in $UFS_ADDITIONAL_STORES.
Completion of commands and image names, for bash (zsh and fish alike):
  eval "$(_UFS_COMPLETE=bash_source ufs)"
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed: see `COMMANDS`. Without a command it shows its help."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """As click does; `--help` prints here."""
        with output_may_close():
            return super().make_context(info_name, args or ["--help"], *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does."""
        with output_may_close():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(self.commands_here())

    def commands_here(self) -> dict[str, str]:
        """The table of this group: see `COMMANDS`."""
        return COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        place = self.commands_here().get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint for one that does not exist."""
        name = args[0]
        if name not in self.commands_here() and not name.startswith("-"):
            raise click.UsageError(_no_command(name, self.commands_here()), ctx)
        found, command, rest = super().resolve_command(ctx, args)
        if command is not None and any("=" in word for word in rest):
            from launcher.cli import booleans

            rest = booleans.rewritten(command, rest)
        return found, command, rest


def _no_command(name: str, known: dict[str, str]) -> str:
    import difflib

    from launcher.cli import docker_words

    says = docker_words.COMMANDS.get(name)
    if says is not None:
        return f"no command {name!r}: {says}"
    near = difflib.get_close_matches(name, known, 2)
    near = near or difflib.get_close_matches(name, docker_words.COMMANDS, 1, 0.7)
    return f"no command {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def ufs() -> None:
    """Container images without root: load them, browse them, run commands in them."""


def main() -> None:
    """The entry point of `ufs`."""
    inherited.put_right()
    # bin/ufs has set it to end at once; from here on what was begun is cleared away first.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = run(sys.argv[1:])
    except SystemExit as leave:
        if not isinstance(leave.code, int) or leave.code >= 0:
            raise
        status = leave.code
    if status < 0:  # what was run in a container was interrupted
        inherited.die_of(-status)
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run a command line; the exit status. The one place where errors become a line on standard error."""
    try:
        result = ufs.main(arguments, "ufs", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except UfsError as error:
        return _fail(str(error), error.status)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "ufs"
        return _fail(f"{error.format_message()} (see {command} --help)", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 0)
        return -signal.SIGINT
    except (OutputClosed, BrokenPipeError):
        return end_unread()
    except OSError as error:
        return _fail(describe(error), 1)


def describe(error: OSError) -> str:
    """One line that names the file and the cause."""
    reason = error.strerror or str(error)
    if error.errno == errno.EACCES and error.filename is not None:
        reason += "; its owner or mode does not let this user"
    if error.filename is None:
        return reason
    return f"{os.fsdecode(error.filename)}: {reason}"


def _fail(message: str, status: int) -> int:
    complain(" ".join(message.splitlines()))
    return status
