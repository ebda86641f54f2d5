"""A proof: statements, each with how far it is from holding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.errors import CheckError
from interp.showing import Shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Check", "Proof", "concluded"]

TOLERANCE = 1e-8
"""Products of up to a hundred float64 matrices stay a thousand times closer than this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Check:
    """One statement and how far it is from holding."""

    statement: str
    deviation: float
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether the deviation is within the tolerance (never where it is not a number)."""
        return self.deviation <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proof(Shown):
    """What was checked, all of which holds."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def worst(self) -> float:
        """The largest deviation of any check."""
        return max(check.deviation for check in self.checks)

    def to_frame(self) -> pd.DataFrame:
        """A row per check."""
        import pandas as pd

        return pd.DataFrame(
            [(c.statement, c.deviation, c.tolerance, c.holds) for c in self.checks],
            columns=["statement", "deviation", "tolerance", "holds"],
        )

    def _listing(self) -> pd.DataFrame:
        return self.to_frame()

    def __repr__(self) -> str:
        return f"Proof({self.subject}: {len(self.checks)} checks hold, worst deviation {self.worst:.1e})"


def concluded(subject: str, checks: Iterable[Check]) -> Proof:
    """A proof of ``subject`` if all checks hold; CheckError with the first that fails if not."""
    checks = list(checks)
    broken = [check for check in checks if not check.holds]
    if broken:
        first = broken[0]
        raise CheckError(
            f"{subject}: {len(broken)} of {len(checks)} checks fail, first: {first.statement} "
            f"(off by {first.deviation:.3g}, allowed {first.tolerance:.0e})"
        )
    return Proof(subject=subject, checks=tuple(checks))
