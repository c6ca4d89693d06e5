"""Where a supervisor goes on that has given back what it needed to start: a program of its own, see `handover`."""

import json
import sys

handed = json.loads(sys.argv[1])
sys.path[:] = handed.pop("path")

from launcher.supervisor.handover import resume  # noqa: E402 it is found by that path only

resume(handed)
