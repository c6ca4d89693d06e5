"""When a container is started again by itself: Docker's policies, with Docker's back-off.

`no`, `on-failure[:N]`, `always`, `unless-stopped`; the rules are those of moby's restartmanager: 100 ms, doubled each
time up to a minute, and from the beginning again for one that has run for ten seconds.
"""

from __future__ import annotations

from launcher.container import state
from launcher.container.config import Restart
from launcher.errors import UfsError

NO, ON_FAILURE, ALWAYS, UNLESS_STOPPED = "no", "on-failure", "always", "unless-stopped"
POLICIES = (NO, ON_FAILURE, ALWAYS, UNLESS_STOPPED)

_FIRST, _LONGEST, _LONG_RUN = 0.1, 60.0, 10.0  # seconds


def parse(text: str | None) -> Restart:
    """--restart; raises `UfsError`."""
    name, colon, number = (text or NO).partition(":")
    if name not in POLICIES:
        raise UfsError(f"--restart {text}: there are no, on-failure[:N], always and unless-stopped", 125)
    if not colon:
        return Restart(name)
    if name != ON_FAILURE:
        raise UfsError(f"--restart {text}: a number of times goes with on-failure only", 125)
    if not number.isdecimal() or not number.isascii():
        raise UfsError(f"--restart {text}: after on-failure: comes a number of times; 0 for no end", 125)
    return Restart(name, int(number))


def check(policy: Restart, *, remove: bool) -> Restart:
    """`policy`, unless the container is removed when it ends: then nothing is left to start again."""
    if remove and policy.name != NO:
        raise UfsError(f"--restart {policy.name} and --rm exclude each other: what has been removed cannot start", 125)
    return policy


def after(policy: Restart, ended: state.Exited, delay: float) -> state.Restarting | None:
    """What comes after an end that nobody asked for; None: nothing more. `delay` is how long it waited the last time.

    `ended.started` says how long it ran.
    """
    if not _again(policy, ended):
        return None
    pause = min(2 * delay, _LONGEST) if delay and ended.at - ended.started < _LONG_RUN else _FIRST
    return state.Restarting(
        ended.at, ended.status, ended.error, ended.created, ended.started, ended.restarts + 1, pause
    )  # fmt: skip


def brought_back(policy: Restart, seen: state.Seen) -> bool:
    """Whether `ufs start --all` starts a container, which it is for after a start of the machine.

    As Docker's daemon does when it comes up: always, also what somebody had stopped; unless-stopped, not what somebody
    had. One that never ran has nothing to be brought back to.
    """
    if not isinstance(seen, state.Exited):
        return False
    return policy.name == ALWAYS or (policy.name == UNLESS_STOPPED and not seen.stopped)


def _again(policy: Restart, ended: state.Exited) -> bool:
    if policy.name == ON_FAILURE:
        return ended.status != 0 and (not policy.maximum or ended.restarts < policy.maximum)
    return policy.name != NO
