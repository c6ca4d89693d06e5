"""What the caller has and a container has not: umask, directory, closed streams, ignored signals, a locale."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.launcher import archives
from tests.launcher.running import Runner
from tests.support.users import User


def shell(run: Runner, line: str, *words: str, **kw: object) -> subprocess.CompletedProcess[bytes]:
    """Run `line` in a shell of the caller, where "$@" is ufs-run with `words` in the busybox image."""
    command = run.user.command(["ufs-run", "--rm", *(run.image if word == "IMAGE" else word for word in words)])
    return run.user.run(["bash", "-c", line, "bash", *command], text=False, **kw)


@pytest.mark.parametrize("umask", ["077", "777", "000"])
def test_the_umask(run: Runner, umask: str) -> None:
    script = "umask; echo x > /n; mkdir /d; chmod g-x /etc; stat -c %a / /etc /etc/hosts /etc/mtab /tmp /n /d /w /w/o"
    volume = f"{run.user.temp}:/v/deep"
    line = f'umask {umask}; exec "$@"'
    done = shell(run, line, "-w", "/w/o", "-v", volume, "IMAGE", "sh", "-c", script + "; stat -c %a /v")
    assert done.stdout.split() == b"0022 755 745 644 777 1777 644 755 755 755 755".split()
    assert run.user.run(["bash", "-c", f"umask {umask}; ufs load {run.image}; exec ufs images"]).stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(run: Runner, closed: str) -> None:
    """What is closed is /dev/null; nothing else ever takes its number."""
    script = "echo out; echo err >&2; cat; [ -e /dev/fd/0 ] && [ -e /dev/fd/1 ] && [ -e /dev/fd/2 ] && exit 5"
    done = shell(run, f'"$@" {closed}', "-i", "IMAGE", "sh", "-c", script)
    said = b"" if ">&-" in closed.split() else b"out\n", b"" if "2>&-" in closed else b"err\n"
    assert (done.returncode, done.stdout, done.stderr) == (5, *said)
    assert run.user.run(["bash", "-c", f"ufs images {closed}"]).returncode == 0
    assert run.user.run(["bash", "-c", f"ufs rmi nosuch {closed}"]).returncode == 1


def test_a_working_directory_that_was_deleted(run: Runner) -> None:
    line = 'mkdir gone && cd gone && rmdir ../gone && "$@" && ufs images'
    done = shell(run, line, "IMAGE", "pwd", cwd=run.user.temp)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, b"/", b"")


def ignore_everything() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def test_signals_are_at_their_defaults_inside(run: Runner) -> None:
    """Whatever the caller ignores or blocks; `yes | head` ends without a word."""
    script = "grep -E 'Sig(Ign|Blk)' /proc/self/status; yes | head -n1"
    done = run("IMAGE", "sh", "-c", script, preexec_fn=ignore_everything)
    assert (done.stdout, done.stderr) == (f"SigBlk:\t{0:016x}\nSigIgn:\t{0:016x}\ny\n", "")


@pytest.mark.parametrize(
    ("config", "status", "says"),
    [
        ({"WorkingDir": "/a\0b"}, 125, "NUL"),
        ({"WorkingDir": "/a" * 2500}, 125, "File name too long"),
        ({"Env": ["A=" + "x" * 200000]}, 126, "Argument list too long"),
    ],
)
def test_whatever_prevents_exec_is_one_line(user: User, config: dict[str, object], status: int, says: str) -> None:
    files: dict[str, bytes] = {}
    described = archives.image(files, [archives.FIRST], config=config)
    layout = archives.write(archives.layout(files, [described]), user.temp / "layout")
    user.own(layout)
    done = user.run(["ufs-run", "--rm", "-v", "/bin/busybox:/b", layout, "/b", "true"])
    assert (done.returncode, says in done.stderr, done.stderr.count("\n")) == (status, True, 1), done


def locale_of(run: Runner, name: str) -> dict[str, str]:
    """The environment for a locale, compiled here where the machine lacks it."""
    if name != "de_DE.ISO-8859-1":
        return {"LC_ALL": name}
    folder = run.user.temp / "locales"
    folder.mkdir()
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / name], capture_output=True)
    assert (folder / name).exists(), made.stderr
    run.user.own(folder)
    return {"LC_ALL": name, "LOCPATH": str(folder)}


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_bytes_go_through_whatever_the_locale(run: Runner, locale: str) -> None:
    env = locale_of(run, locale)
    odd = bytes(range(1, 256)).replace(b"/", b"")
    words = os.fsdecode(odd)
    script = 'printf %s "$1" | od -An -tx1 | tr -d " \n"; echo; printf %s "$V" | od -An -tx1 | tr -d " \n"; echo; pwd'
    done = run.user.run(
        ["ufs-run", "--rm", "-e", f"V={words}", "-w", "/é\udcff", run.image, "sh", "-c", script, "sh", words],
        env=env, check=True, text=False,
    )  # fmt: skip
    assert done.stdout == f"{odd.hex()}\n{odd.hex()}\n".encode() + "/é".encode() + b"\xff\n"
    place = run.user.temp / os.fsdecode(b"ol\xe9 \xff\x1b[31m")
    place.mkdir()
    run.user.own(place)
    volume = f"{place}:/{words.replace(':', '')[:200]}/v"
    command = ["ufs-run", "--name", "odd", "-v", volume, run.image, "touch", "/v\udcff\x1b[2J", words]
    kept = run.user.run(command, env=env, text=False)
    assert (kept.returncode, kept.stderr) == (0, b"")
    for command in (["diff", "odd"], ["ps", "-a"], ["images"], ["run", "--rm", words], ["rm", words]):
        done = run.user.run(["ufs", *command], env=env, text=False)
        assert b"\x1b" not in done.stdout + done.stderr, done
        assert (done.returncode != 0) == (words in command), done
    missing = run.user.run(["ufs-run", "--rm", run.image, "nosuch\udcff\x1b[2J\n"], env=env, text=False)
    assert (missing.returncode, missing.stderr.count(b"\n"), b"\x1b" in missing.stderr) == (127, 1, False)


BY_NAME = "for f in /dev/stdout /dev/stderr /proc/self/fd/1; do echo $f > $f || exit 1; done; cat /dev/stdin; id -u"


@pytest.mark.parametrize("log", [[], ["--log-driver", "none"]])
@pytest.mark.parametrize("who", ["somebody", "0"])
def test_streams_can_be_opened_by_name(run: Runner, who: str, log: list[str]) -> None:
    """As with Docker, whatever the user: pipes and files of the caller, which stay the caller's."""
    uid = "1000\n" if who == "somebody" else "0\n"
    said = "/dev/stdout\n/proc/self/fd/1\nfrom stdin\n" + uid
    words = ["-u", who, *log, "-i", "IMAGE", "sh", "-c", BY_NAME]
    done = run(*words, input="from stdin\n", check=True)
    assert (done.stdout, done.stderr) == (said, "/dev/stderr\n")
    if who == "0" and log:
        return  # root's files are the caller's own: each name truncates
    (run.user.temp / "in").write_text("from stdin\n")
    run.user.own(run.user.temp)
    done = shell(run, 'umask 077; "$@" < in > out 2> err', *words, cwd=run.user.temp)
    assert done.returncode == 0
    if who == "somebody":
        assert [(run.user.temp / name).read_text() for name in ("out", "err")] == [said, "/dev/stderr\n"]
    assert {((run.user.temp / name).stat().st_uid, (run.user.temp / name).stat().st_mode & 0o777)
            for name in ("out", "err")} == {(run.user.uid, 0o600)}  # fmt: skip


def test_streams_of_exec_can_be_opened_by_name(run: Runner) -> None:
    run.user.run(["ufs-run", "-d", "--name", "long", run.image, "sleep", "99"], check=True)
    command = ["ufs", "exec", "-i", "-u", "somebody", "long", "sh", "-c", BY_NAME]
    done = run.user.run(command, input="from stdin\n", check=True)
    assert (done.stdout, done.stderr) == ("/dev/stdout\n/proc/self/fd/1\nfrom stdin\n1000\n", "/dev/stderr\n")
    words = " ".join(run.user.command(["ufs", "exec", "-u", "somebody", "long", "yes"]))
    assert run.user.run(["bash", "-c", f"{words} | head -n1; echo ${{PIPESTATUS[0]}}"]).stdout == "y\n141\n"
    run.user.run(["ufs", "rm", "--force", "long"], check=True)
