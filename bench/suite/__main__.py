"""script/bench: see ../README.md."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import prctl

from bench.suite import chart, table
from bench.suite.area import NoRoom, area
from bench.suite.placement import PLACEMENTS
from bench.suite.run import known, run
from bench.suite.sizes import BY_NAME
from bench.suite.subjects import all_subjects

_CHOICES = {name.split()[0]: name for name in PLACEMENTS}


def main() -> None:
    """Measure, or draw what was measured."""
    options = _options()
    if options.chart:
        rows = json.loads(options.chart.read_text())
        options.svg.write_text(chart.svg(rows))
        print(table.text(rows))
        return
    if unknown := set(options.workloads) - set(known()):
        sys.exit(f"bench: unknown workload {', '.join(sorted(unknown))}; there are {', '.join(known())}")
    # As Ctrl-C: timeout(1) and CI end a run so, and mounts, servers and a trace instance have to go with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    prctl.set_child_subreaper(1)  # the servers of `ufs mount` are in the background, and are to be waited for
    placements = [_CHOICES[name] for name in options.placement or _CHOICES]
    subjects = [subject for subject in all_subjects() if not options.subject or subject.name in options.subject]
    try:
        with area(BY_NAME[options.sizes], options.place) as path:
            rows = run(path, BY_NAME[options.sizes], options.workloads, placements, subjects)
    except NoRoom as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; nothing is left behind")
    if options.json:
        temporary = options.json.with_name(f".{options.json.name}.{os.getpid()}")
        temporary.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        temporary.replace(options.json)
    if rows:
        print(table.text(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench", description="Every workload on every subject.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="names of workloads or groups; all for none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--quick", dest="sizes", action="store_const", const="quick", default="full", help="one minute, small content"
    )
    parser.add_argument("--sizes", choices=BY_NAME, default="full", help="full: at most ten minutes")
    parser.add_argument("--placement", nargs="+", choices=_CHOICES, help="both by default")
    parser.add_argument("--subject", nargs="+", choices=[s.name for s in all_subjects()], help="all by default")
    parser.add_argument("--place", metavar="DIRECTORY", help="where; by default a tmpfs with room")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="measure nothing: draw the figures in FILE")
    parser.add_argument("--svg", type=Path, default=Path("docs/bench.svg"), help="where to draw")
    return parser.parse_args()


if __name__ == "__main__":
    main()
