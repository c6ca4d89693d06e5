"""What is left to do when a change shows or has been given up: removing temporaries, settling names of records.

The caller is told of the change, so what fails here is logged and not raised. Whatever it leaves does no harm, as a
server that is killed may leave it as well. The next mount removes temporaries and settles records; a whiteout that
hides nothing and the time of a directory stay as they are.
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

        logging.getLogger("unionfs").warning("%s: %s; what is left does no harm", what, failure.strerror)
