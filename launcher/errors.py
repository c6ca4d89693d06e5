"""What reaches the user of the launcher when something cannot be done."""

from __future__ import annotations


class UfsError(Exception):
    """One line that names the thing, the cause and what to do; `status` is the exit status it ends with."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
