"""The search of script/fuzz for one target, guided by what it covers: python -m tests.fuzz.search TARGET SECONDS."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["unionfs.image", "launcher.image", "launcher.registry.challenge"]):
    from tests.fuzz import targets

KEPT = Path(__file__).parents[2] / ".cache" / "fuzz"


def main() -> None:
    """Run until the time is over; what is found is written to .cache/fuzz/found and ends the search."""
    name, seconds = sys.argv[1:]
    grown, found = KEPT / "corpus" / name, KEPT / "found"
    for directory in (grown, found):
        directory.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", "-max_len=8192", "-rss_limit_mb=1024", "-timeout=20", "-verbosity=0"]
    options += [f"-artifact_prefix={found}/{name}-", str(grown), str(targets.CORPUS / name)]
    atheris.Setup([sys.argv[0], *options], targets.TARGETS[name])
    atheris.Fuzz()


main()
