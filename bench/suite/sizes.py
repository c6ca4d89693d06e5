"""How much content there is and how long a run may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """`files`, `small`, `renamed`, `layered` are numbers of files; the others say what they are in their names."""

    files: int
    small: int
    renamed: int
    layered: int
    big_mib: int
    image_mib: int
    fio_mib: int
    units: int
    """C files to compile."""
    transactions: int
    rows: int
    budget_seconds: float
    """No round is begun that is expected to end later."""
    most_rounds: int

    @property
    def needed_mib(self) -> int:
        """Room for everything: content, what the subjects write, the archives and stores of images."""
        files = self.files + 3 * self.small + self.renamed + 3 * self.layered
        return 4 * self.big_mib + 6 * self.image_mib + 8 * self.fio_mib + files // 40 + 200


FULL = Sizes(
    files=50_000, small=9_000, renamed=10_000, layered=10_000, big_mib=1024, image_mib=250, fio_mib=32, units=24,
    transactions=300, rows=50_000, budget_seconds=570, most_rounds=5,
)  # fmt: skip
QUICK = Sizes(
    files=1_500, small=400, renamed=500, layered=250, big_mib=32, image_mib=15, fio_mib=1, units=2,
    transactions=20, rows=2_000, budget_seconds=54, most_rounds=3,
)  # fmt: skip
TINY = Sizes(
    files=200, small=50, renamed=50, layered=100, big_mib=2, image_mib=1, fio_mib=1, units=1,
    transactions=3, rows=50, budget_seconds=100, most_rounds=1,
)  # fmt: skip
BY_NAME = {"full": FULL, "quick": QUICK, "tiny": TINY}
