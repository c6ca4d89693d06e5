"""ufs-mount: mount a union of directories."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import textwrap

import click

from unionfs import __version__
from unionfs.commandline import OneLine
from unionfs.options import IGNORED, OptionError, Options, parse
from unionfs.serve import ENGINES

EPILOG = """\b
Options for -o, separated by commas:
  lowerdir=A:B         read-only directories, topmost first; "\\:" and "\\," are parts of a name
  upperdir=U           directory that takes what changes; without it the mount is read-only
  workdir=W            an empty directory on the file system of U
  ro, rw               read-only although there is an upper, or not (default)
  allow_other          let other users use the mount (root: always)
  default_permissions  let the kernel check modes (with an upper: always)
  volatile             fsync(2) and its like do nothing: what is written need not survive a crash of the machine
  writeback            let the kernel merge small writes; a full disk shows at close(2) then, not at write(2)
  timeout=SECONDS      show changes of the lower directories after so long (default: they do not change)
  squash_to_root       everything belongs to root
  uidmapping=A:B:N[:...], gidmapping=A:B:N[:...]
                       N ids, on disk from A on, are shown from B on
  squash_to_uid=N, squash_to_gid=N   everything belongs to N
  xattr_permissions=2  the upper keeps owners and modes in xattrs (user.containers.override_stat)
Accepted without effect, for engines and mount(8):
  {ignored}
Others are warned about and passed over.

\b
Examples:
  ufs-mount -o lowerdir=/srv/base,upperdir=/tmp/up,workdir=/tmp/work /mnt/merged
  ufs-mount -o lowerdir=patched:base merged        browse two directories as one
  fusermount3 -u merged
"""


_IGNORED = textwrap.fill(", ".join(sorted(IGNORED)), 110, subsequent_indent="  ", break_on_hyphens=False)


@click.command(
    "ufs-mount",
    cls=OneLine,
    epilog=EPILOG.replace("{ignored}", _IGNORED),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-o", "options", metavar="OPTIONS", multiple=True, help="Mount options, see below.")
@click.option("-f", "foreground", is_flag=True, help="Stay in the foreground.")
@click.option("-d", "debug", is_flag=True, help="Log every step; implies -f.")
@click.option("--engine", type=click.Choice(ENGINES), default="direct", show_default=True, help="Front end.")
@click.version_option(__version__, prog_name="ufs-mount", message="%(prog)s %(version)s")
@click.argument("targets", metavar="[SOURCE] TARGET", nargs=-1, required=True)
def main(options: tuple[str, ...], foreground: bool, debug: bool, engine: str, targets: tuple[str, ...]) -> None:
    """Mount a union of the directories named by -o on TARGET.

    Returns once the mount answers; the server goes on in the background. SOURCE is accepted for mount(8) and
    means nothing.
    """
    if len(targets) > 2:
        raise click.UsageError("at most a source and a target can be named")
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="ufs-mount: %(message)s")
    try:
        parsed = parse(options)
        for name in parsed.unknown:
            print(f"ufs-mount: option {name!r} is not known and has no effect", file=sys.stderr)
        _mount(parsed, targets[-1], engine, foreground or debug)
    except (OSError, OptionError) as error:
        print(f"ufs-mount: {describe(error)}", file=sys.stderr)
        sys.exit(1)


def describe(error: Exception) -> str:
    """One line that names the thing, the cause and what to do."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


_HINTS = {
    errno.ENOENT: "make it (mkdir -p), or correct its name",
    errno.ENOTDIR: "name a directory instead",
    errno.EACCES: "this user needs to read and enter it and to enter all above it (chmod, or another user)",
    errno.ENOTCONN: "it is a mount whose server has ended: unmount it first (fusermount3 -u, or umount)",
}
"""By the errno of a directory that was named: what to do."""


def _wrong(code: int, role: str, path: str) -> OSError:
    """The error of a directory that was named, with its role and what to do."""
    hint = _HINTS.get(code)
    return OSError(code, f"{os.strerror(code)} ({role})" + (f"; {hint}" if hint else ""), path)


def _check(role: str, path: str) -> None:
    """Raise `OSError` with the role in its text unless `path` is a directory that may be entered, an upper's also read.

    A lower directory that may be entered but not listed is one whose names are found all the same.
    """
    access = os.O_PATH if role == "lowerdir" else os.O_RDONLY
    try:
        os.close(os.open(os.path.join(path, "."), access | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise _wrong(error.errno or 0, role, path) from None
    if role == "workdir" and not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, f"{os.strerror(errno.EACCES)} ({role}); this user needs to write in it", path)


def _check_target(path: str) -> None:
    """Raise `OSError` unless `path` is a directory; it need not be readable, for it is what is mounted that will be."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise _wrong(error.errno or 0, "mount point", path) from None
    if not is_directory:
        raise _wrong(errno.ENOTDIR, "mount point", path)


def _mount(options: Options, target: str, engine: str, foreground: bool) -> None:
    from unionfs.background import hold_signals, run
    from unionfs.fuse import mount, wire
    from unionfs.live.directories import DirectoryStack
    from unionfs.open import open_union
    from unionfs.ownership import Translated
    from unionfs.serve import serve

    for role, named in (("mount point", target), ("upperdir", options.upper), ("workdir", options.work)):
        if named == "":  # os.path would take it for the current directory
            raise OptionError(f"{role}: the name is empty; name a directory")
    lower = [os.fsencode(os.path.abspath(path)) for path in options.lower]
    squash = None
    if options.squash_uid is not None or options.squash_gid is not None:
        squash = options.squash_uid or 0, options.squash_gid or 0
    target = os.path.realpath(target)
    _check_target(target)
    for path in options.lower:
        _check("lowerdir", os.path.abspath(path))
    for role, named in (("upperdir", options.upper), ("workdir", options.work)):
        if named is not None:
            _check(role, named)
    # The mount may lie below a lower directory: the server must not wait for itself.
    timeout = wire.FOREVER if options.timeout is None else min(options.timeout, wire.FOREVER)
    tree = DirectoryStack(lower, skip=[os.fsencode(target)], timeout=timeout)
    translated = None
    if options.uid_map or options.gid_map:
        translated = Translated(options.uid_map, options.gid_map)
    union = open_union(tree, options.upper, options.work, squash, translated, options.overrides, options.volatile)
    read_only = options.read_only or options.upper is None
    source = "ufs"
    hold_signals()
    if os.geteuid() == 0:
        fd = mount.open_device()
        mount.mount(fd, target, source=source, read_only=read_only)
    else:
        wanted = ["ro"] if read_only else []
        wanted += ["allow_other"] * options.allow_other
        wanted += ["default_permissions"] * (options.default_permissions or not read_only)
        fd = mount.fusermount(target, [f"fsname={source}", *wanted])
    try:
        run(
            lambda ready: serve(union, fd, engine, ready, writeback=options.writeback),
            lambda: mount.unmount(target),
            foreground,
        )
    except BaseException:
        mount.unmount(target)
        raise
