"""The `ufs` command. A family of sub-commands is a file beside this one and a line for each in `COMMANDS`."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

import click

from launcher.errors import UfsError
from unionfs import __version__

COMMANDS = {
    "diff": "launcher.cli.containers:diff",
    "images": "launcher.cli.images:images",
    "load": "launcher.cli.images:load",
    "mount": "launcher.cli.mount:mount",
    "prune": "launcher.cli.images:prune",
    "ps": "launcher.cli.containers:ps",
    "rm": "launcher.cli.containers:rm",
    "rmi": "launcher.cli.images:rmi",
    "run": "launcher.cli.run:command",
    "umount": "launcher.cli.mount:umount",
}
"""Name of a sub-command to module and attribute; imported when it is called."""

EPILOG = """\b
Examples:
  ufs load alpine.tar           add what docker save or podman save wrote
  ufs images                    list the images
  ufs run --rm -it alpine sh    a shell in an image (ufs-run is the same, and starts quicker)
  ufs mount alpine /tmp/alpine  browse an image; ufs umount /tmp/alpine ends it

\b
Images are kept in $UFS_ROOT, by default ~/.local/share/ufs.
Completion of commands and image names, for bash (zsh and fish alike):
  eval "$(_UFS_COMPLETE=bash_source ufs)"
"""

_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed: see `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        place = COMMANDS.get(cmd_name)
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
        """As click does, with the nearest names for one that does not exist."""
        import difflib

        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, 2)
            hint = f"did you mean {' or '.join(near)}?" if near else "ufs --help lists the commands"
            raise click.UsageError(f"no command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def ufs() -> None:
    """Container images without root: load them, browse them, run commands in them."""


def main() -> None:
    """The entry point of `ufs`."""
    sys.exit(run(sys.argv[1:]))


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
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
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
    sys.stderr.write(f"ufs: {' '.join(message.splitlines())}\n")
    return status
