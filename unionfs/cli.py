"""ufs-mount: mount a union of directories."""

from __future__ import annotations

import logging
import os
import sys
import textwrap

import click

from unionfs import __version__, inherited
from unionfs.commandline import OneLine
from unionfs.options import IGNORED, OptionError, parse
from unionfs.serve import ENGINES

EPILOG = """\b
Options for -o, separated by commas:
  lowerdir=A:B         read-only directories, topmost first; "\\:" and "\\," are parts of a name
  upperdir=U           directory that takes what changes; without it the mount is read-only
  workdir=W            an empty directory on the file system of U
  ro, rw               read-only although there is an upper, or not (default)
  nosuid, nodev, noexec, nosymfollow, sync, dirsync, noatime, nodiratime, relatime, strictatime, lazytime
                       as for every file system (mount(8)); also suid, dev, exec, symfollow, async, atime, diratime,
                       norelatime, nostrictatime, nolazytime, defaults, user, users, owner, group
  remount              change the flags above of the mount on TARGET (root)
  fsname=X, subtype=Y  show X as the device and fuse.Y as the type (default: SOURCE or ufs, and fuse.ufs-mount)
  private              what is mounted below TARGET later stays in this mount namespace
  allow_other          let other users use the mount (root: always)
  default_permissions  let the kernel check modes (with an upper: always)
  allow_root           let nobody but root use the mount (of root; others cannot let root in)
  volatile, fsync=0, sync=0
                       fsync(2) and its like do nothing: what is written need not survive a crash of the machine
  noxattrs, noacl      no extended attributes (EOPNOTSUPP), or no ACLs
  redirect_dir=off     rename no directories that a lower directory has a part in (EXDEV: mv copies); default: on
  static_nlink         directories have one link
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

    Returns once the mount answers; the server goes on in the background. SOURCE is what /proc/mounts and df(1)
    show as the device.
    """
    inherited.put_right()
    if len(targets) > 2:
        raise click.UsageError("at most a source and a target can be named")
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="ufs-mount: %(message)s")
    try:
        parsed = parse(options)
        for name in parsed.unknown:
            print(f"ufs-mount: option {name!r} is not known and has no effect", file=sys.stderr)
        if parsed.remount:
            from unionfs.fuse.remount import remount

            remount(os.path.realpath(targets[-1]), parsed.flags)
            return
        from unionfs.mounting import mount

        mount(parsed, targets[-1], engine, foreground or debug, source=targets[0] if len(targets) == 2 else "")
    except (OSError, OptionError) as error:
        print(f"ufs-mount: {describe(error)}", file=sys.stderr)
        sys.exit(1)


def describe(error: Exception) -> str:
    """One line that names the thing, the cause and what to do."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)
