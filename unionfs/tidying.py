"""What is left to do when a change shows or has been given up: removing temporaries, settling names of records.

The caller is told of the change, so what fails here is logged and not raised. Whatever it leaves is one of the states
that a killed server leaves as well, and the next mount tidies those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tidying(what: str) -> Iterator[None]:
    """Around a step of tidying; `what` names it in the log."""
    try:
        yield
    except OSError as failure:
        import logging

        logging.getLogger("unionfs").warning("%s: %s; the next mount does it", what, failure.strerror)
