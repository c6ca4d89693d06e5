"""Calls that are made once more, after what stood in their way was put right."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from unionfs.tree import Tree
from unionfs.upper import Upper

_T = TypeVar("_T")


class Remedies:
    """What the union can do about an error of the host."""

    tree: Tree
    upper_or_none: Upper | None
    _short = False
    """Whether descriptors were given up for the call that is being made."""

    def insist(self, call: Callable[[], _T]) -> _T:
        """Make a call, and once more where there is a `remedy`."""
        try:
            return call()
        except OSError as failure:
            remedy = self.remedy(failure)
            if remedy is None:
                raise
            with remedy:
                return self.insist(call)

    def remedy(self, failure: OSError) -> AbstractContextManager[None] | None:
        """In what a call that failed is to be made once more; None where it would fail again.

        That is where the host shuts this server out of its own upper (`unionfs.upper.insisting`), and where too many
        files are open. What failed has changed nothing, so it can be made again.
        """
        if failure.errno == errno.EACCES and (upper := self.upper_or_none) is not None and not upper.insists:
            return upper.insisting()
        if failure.errno in (errno.EMFILE, errno.ENFILE) and not self._short:
            return self._with_few_descriptors()
        return None

    @contextmanager
    def _with_few_descriptors(self) -> Iterator[None]:
        self._short = True
        try:
            if self.upper_or_none is not None:
                self.upper_or_none.give_up()
            self.tree.give_up()
            yield
        finally:
            self._short = False
