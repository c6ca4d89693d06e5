"""Log lines of our own packages that no test expected."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

PACKAGES = ("unionfs", "launcher")


class Collector(logging.Handler):
    """Keeps every record from WARNING on of these packages, by default our own."""

    def __init__(self, *packages: str) -> None:
        super().__init__(logging.WARNING)
        self.packages = packages or PACKAGES
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    def __enter__(self) -> Collector:
        for name in self.packages:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.packages:
            logging.getLogger(name).removeHandler(self)

    def complaints(self, expected: Iterable[str]) -> list[str]:
        """Lines that match no expected pattern, and patterns that matched no line."""
        patterns = list(expected)
        unexpected = [line for line in self.lines if not any(re.search(p, line) for p in patterns)]
        silent = [p for p in patterns if not any(re.search(p, line) for line in self.lines)]
        return [f"unexpected: {line}" for line in unexpected] + [f"not logged: {p}" for p in silent]
