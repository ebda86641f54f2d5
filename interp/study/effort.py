"""Effort: how much work a study may ask of its stations. A value that is handed to them; what it means they decide."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import InputError, nearest

__all__ = ["DEEP", "PRESETS", "QUICK", "STANDARD", "Effort", "effort_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much work, and whether a station takes its full form: its best method with every control."""

    name: str = "standard"
    scale: float = 1.0
    """Of a station's usual amounts: rows, steps, prompts, seeds."""
    full: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise InputError(f"an effort's scale is above 0 (1: a station's usual amounts), got {self.scale}")

    def of(self, n: int, *, least: int = 1) -> int:
        """So many of the usual ``n``, but at least ``least`` of them (and never fewer than one)."""
        return max(1, min(n, least), round(n * self.scale))


QUICK = Effort(name="quick", scale=0.2)
STANDARD = Effort()
DEEP = Effort(name="deep", scale=1.0, full=True)
PRESETS = {effort.name: effort for effort in (QUICK, STANDARD, DEEP)}


def effort_of(value: str | Effort) -> Effort:
    """An effort by the name of its preset; an :class:`Effort` is handed back.

    Raises
    ------
    InputError
        No preset has the name.
    """
    if isinstance(value, Effort):
        return value
    if value not in PRESETS:
        raise InputError(f"no preset {value!r}{nearest(str(value), PRESETS)} (presets: {', '.join(PRESETS)})")
    return PRESETS[value]
