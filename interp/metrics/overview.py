"""Overview: a profile and a similarity matrix as tables, saved results and a page; what ``interp metrics`` writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.escaping import csv_text
from interp.results import Result
from interp.runs.files import write_bytes_atomic

if TYPE_CHECKING:
    import pandas as pd

    from interp.study.stations import Section

__all__ = ["keep", "sections", "table"]


def table(profile: Mapping[str, Result]) -> pd.DataFrame:
    """One row a quantity and site: value, stderr, low, high, chance, n."""
    import pandas as pd

    parts = [result.to_frame().assign(quantity=name) for name, result in profile.items()]
    columns = ["quantity", "site", "value", "stderr", "low", "high", "chance", "n"]
    return pd.concat(parts, ignore_index=True).reindex(columns=columns)


def keep(folder: Path, profile: Mapping[str, Result], similarity: Result | None) -> list[Path]:
    """``metrics.csv``, ``similarity.csv`` and a file of each Result under ``results/``; their paths."""
    written = [folder / "metrics.csv"]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(written[0], csv_text(table(profile)).encode())
    if similarity is not None:
        written.append(folder / "similarity.csv")
        write_bytes_atomic(written[-1], csv_text(similarity.to_frame()).encode())
    for name, result in (profile if similarity is None else {**profile, "similarity": similarity}).items():
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        written.append(result.save(folder / "results" / f"{plain}.safetensors"))
    return written


def sections(profile: Mapping[str, Result], similarity: Result | None) -> list[Section]:
    """The page's sections: every quantity along the layers, and all pairs of layers."""
    from interp.study.stations import Plate, Section, Table

    rows = tuple(
        tuple(None if isinstance(cell, float) and not np.isfinite(cell) else cell for cell in row)
        for row in table(profile).itertuples(index=False, name=None)
    )
    columns = ("quantity", "site", "value", "standard error", "low", "high", "chance", "n")
    made = [
        Section(
            name="profile", title="Layer by layer", summary=_range(profile),
            plates=tuple(
                Plate(title=name, figure=result.plot(), caption=_caption(result)) for name, result in profile.items()
            ),
            tables=(Table(title="Values", columns=columns, rows=rows, caption="Low and high: 95% interval."),),
            numbers={name: _numbers(result) for name, result in profile.items()},
            caveats=tuple(sorted({r.caveat for r in profile.values() if r.caveat})) + _CAVEATS,
        )
    ]  # fmt: skip
    if similarity is not None:
        made.append(
            Section(
                name="similarity", title="Layer against layer", summary=_alike(similarity),
                plates=(Plate(title=similarity.name, figure=similarity.plot(), caption=_caption(similarity)),),
                numbers={"similarity": _numbers(similarity)},
                caveats=("CKA compares the arrangement of these tokens, not what the layers compute.",),
            )
        )  # fmt: skip
    return made


_CAVEATS = (
    "Every rank weighs directions by variance, and variance is not use.",
    "Tokens of one text are not independent: errors over parts of the rows may be too small.",
)


def _caption(result: Result) -> str:
    missing = [why for why in (result.reason, result.no_stderr, result.no_chance) if why]
    return f"{result.convention}. n = {result.n}" + (f". {'; '.join(missing)}" if missing else "") + "."


def _numbers(result: Result) -> dict[str, Any]:
    return {
        "value": result.value, "stderr": result.stderr, "chance": result.chance, "n": result.n,
        "ticks": [list(axis) for axis in result.ticks], "convention": result.convention, "reason": result.reason,
        "no_stderr": result.no_stderr, "no_chance": result.no_chance,
    }  # fmt: skip


def _range(profile: Mapping[str, Result]) -> str:
    said = []
    for name, result in profile.items():
        value = np.asarray(result.value, dtype=float)
        if np.isfinite(value).any():
            said.append(f"{name} {value[_ends(value)[0]]:.3g} to {value[_ends(value)[1]]:.3g}")
    return "From the first to the last site that has a value: " + ", ".join(said) + "."


def _ends(value: Any) -> tuple[int, int]:
    there = np.flatnonzero(np.isfinite(value))
    return int(there[0]), int(there[-1])


def _alike(similarity: Result) -> str:
    value = np.asarray(similarity.value, dtype=float)
    sites: Sequence[str] = similarity.ticks[0]
    if not np.isfinite(value).any():
        return f"No pair of sites has a value: {similarity.reason}."
    i, j = np.unravel_index(np.nanargmin(value), value.shape)
    beside = np.diagonal(value, 1)
    spread = "" if similarity.stderr is None else f" ± {1.96 * np.asarray(similarity.stderr)[i, j]:.1g}"
    near = f"; neighbours run from {np.nanmin(beside):.2f} to {np.nanmax(beside):.2f}" if len(beside) else ""
    return f"The least alike sites are {sites[i]} and {sites[j]}, with {value[i, j]:.2f}{spread}{near}."
