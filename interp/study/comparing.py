"""Two studies set against each other: ``interp compare A B``, from what their reports and stores hold.

What is not comparable is refused by name: studies of other tokens, presets or versions have no differences, only
figures side by side. Read next: ``comparison_page.py``, which lays it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.errors import InputError, InterpError, StoreError
from interp.pages import document
from interp.report.page import read
from interp.results import Result
from interp.runs.files import ensure_folder
from interp.showing import Shown, brief
from interp.study.comparison_page import write_page
from interp.study.effort import STANDARD, Effort
from interp.study.sides import DIFFERS, SAME, UNKNOWN, WITHIN, Hurdle, Row, Side

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compare", "side_of"]

N_ROWS = 2048
"""Tokens behind the similarity of the two models."""
KEPT, NONE_KEPT = "kept", "none kept"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison(Shown):
    """What a comparison found."""

    a: Side
    b: Side
    hurdles: tuple[Hurdle, ...]
    rows: tuple[Row, ...]
    similarity: Result | None
    """Debiased CKA [site of a, site of b] on the same tokens; None where a hurdle says why."""
    shuffled: float | None
    """The largest |CKA| of sites with the rows of one permuted."""
    html: Path
    json: Path

    @property
    def differing(self) -> tuple[Row, ...]:
        """Rows whose difference has an interval that leaves out 0."""
        return tuple(row for row in self.rows if row.verdict == DIFFERS)

    @property
    def judged(self) -> int:
        """Rows with a verdict by an interval."""
        return sum(row.verdict in (WITHIN, DIFFERS, SAME) for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """A line a row."""
        import pandas as pd

        from interp.report.content import plain

        return pd.DataFrame([plain(row) for row in self.rows])

    def __repr__(self) -> str:
        found = f"{len(self.differing)} of {self.judged} figures differ"
        return f"Comparison({brief(self.a.name)!r}, {brief(self.b.name)!r}: {found}; {brief(self.html)!r})"

    def _repr_html_(self) -> str:
        return document.frame_file(self.html, height=900, title="comparison") or Shown._repr_html_(self)


def compare(
    a: Any,
    b: Any,
    *,
    out: str | Path,
    preset: str | Effort = STANDARD,
    seed: int = 0,
    resume: bool = True,
    device: str = "auto",
    **options: Any,
) -> Comparison:
    """Set two studies against each other; writes ``compare.html`` and ``compare.json`` into the folder ``out``.

    Parameters
    ----------
    a, b
        A folder that :func:`interp.analyze` wrote, its ``report.json``, an :class:`Analysis`; or a model (also a
        function in a file, ``"net.py:make"``), which is studied first, into ``out/a`` or ``out/b``.
    resume, device
        For models that are studied here: whether to take over what an earlier run finished, and where they run.
    preset, seed, options
        For models that are studied here; see :func:`interp.analyze`. The seed also draws the tokens of the similarity.

    Raises
    ------
    InputError, StoreError
        A side is no study, or its report is of another schema.

    Notes
    -----
    Cost: that of the studies that are run; else seconds, without a model: similarity is read off the stores.
    """
    home = ensure_folder(out)
    first, second = (
        side_of(given, home / letter, preset=preset, seed=seed, resume=resume, device=device, **options)
        for letter, given in (("a", a), ("b", b))
    )
    hurdles = _hurdles(first, second)
    similarity, shuffled = None, None
    if not any(h.stops == "similarity" or h.what == "tokens" for h in hurdles):
        states = [_activations(side) for side in (first, second)]
        if states == [KEPT, KEPT]:
            try:
                similarity, shuffled = _similarity(first, second, seed=seed)
            except InterpError as error:
                states = [str(error).splitlines()[0]] * 2
        if states != [KEPT, KEPT] and states != [NONE_KEPT, NONE_KEPT]:
            hurdles.append(Hurdle(what="activations", a=states[0], b=states[1], stops="similarity"))
    rows = _rows(first, second, hurdles)
    html, twin = write_page(
        home, first, second, hurdles=hurdles, rows=rows, similarity=similarity, shuffled=shuffled
    )
    return Comparison(
        a=first, b=second, hurdles=tuple(hurdles), rows=tuple(rows), similarity=similarity, shuffled=shuffled,
        html=html, json=twin,
    )  # fmt: skip


def _activations(side: Side) -> str:
    """Whether the study's activations are there, in words that hold no path."""
    if not side.acts.is_dir():
        return NONE_KEPT
    try:
        side.store()
    except StoreError:
        return "cannot be read"
    return KEPT


def side_of(given: Any, folder: Path, *, resume: bool = True, device: str = "auto", **options: Any) -> Side:
    """A side of a comparison: a study that is there, or one that is run now into ``folder``."""
    home, failed = getattr(given, "folder", None), tuple(getattr(given, "failed", ()))
    if home is None and isinstance(given, str | Path):
        path = Path(given)
        home = (
            path.parent if path.name == "report.json" else path if (path / "report.json").is_file() else None
        )
    if home is None:
        from interp import load
        from interp.study.analysis import analyze
        from interp.study.sourcefile import is_source, made_by

        if isinstance(given, str) and is_source(given):
            given = made_by(given, device=device)
        elif isinstance(given, str | Path):
            given = load(given, device=device)
        done = analyze(given, out=folder, resume=resume, **options)
        if done.interrupted:
            raise KeyboardInterrupt
        home, failed = folder, done.failed
    report = read(Path(home) / "report.json")
    return Side(name=report["title"], folder=Path(home), report=report, failed=failed)


def _hurdles(a: Side, b: Side) -> list[Hurdle]:
    """In what the studies differ that decides what their figures mean."""
    asked = [
        ("tokens", ("tokens_sha256",), "differences"),
        ("preset", ("preset",), "differences"),
        ("toolkit version", ("versions", "interp-toolkit"), "differences"),
        ("labels", ("labels_sha256",), "probe"),
        ("seed", ("seed",), ""),
        ("torch version", ("versions", "torch"), ""),
    ]
    found = []
    for what, place, stops in asked:
        one, other = _at(a.provenance, place), _at(b.provenance, place)
        if one != other:
            found.append(Hurdle(what=what, a=_short(one), b=_short(other), stops=stops))
    if a.n_layers != b.n_layers:
        found.append(Hurdle(what="layers", a=str(a.n_layers), b=str(b.n_layers), stops="sites"))
    for side in (a, b):
        for section in side.report["sections"]:
            if section["status"] != "done" and section["status"] != _status(
                b if side is a else a, section["name"]
            ):
                states = [_status(s, section["name"]) for s in (a, b)]
                found.append(Hurdle(what=f"station {section['name']}", a=states[0], b=states[1], stops=""))
    return found


def _status(side: Side, name: str) -> str:
    found = [s for s in side.report["sections"] if s["name"] == name]
    if not found:
        return "not asked for"
    return (
        found[0]["status"] if found[0]["status"] == "done" else f"{found[0]['status']}: {found[0]['reason']}"
    )


def _at(record: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    value: Any = record
    for key in place:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _short(value: Any) -> str:
    if isinstance(value, Mapping):  # a preset
        value = f"{value.get('name')}, scale {value.get('scale')}{', full' if value.get('full') else ''}"
    text = "not recorded" if value is None else str(value)
    return text[:12] + "..." if len(text) == 64 else text


def _rows(a: Side, b: Side, hurdles: list[Hurdle]) -> list[Row]:
    """Every finding of either, those of both with their difference where nothing stops it."""
    ours, theirs, rows = a.findings(), b.findings(), []
    stopped = [h.what for h in hurdles if h.stops == "differences"]
    elsewhere, relabelled = (any(h.stops == what for h in hurdles) for what in ("sites", "probe"))
    for key in dict.fromkeys((*ours, *theirs)):
        one, other = ours.get(key), theirs.get(key)
        row: dict[str, Any] = dict(zip(("kind", "name", "site", "measure"), key, strict=True))
        row |= {"a": one and one["value"], "b": other and other["value"]}
        row |= {"clear_a": bool(one and one["clear"]), "clear_b": bool(other and other["clear"])}
        if (one or other or {}).get("own"):
            row["verdict"] = "not compared: its name means nothing outside of its own study"
        elif one is None or other is None:
            row["verdict"] = "only in the first" if other is None else "only in the second"
        elif stopped:
            row["verdict"] = f"not compared: other {' and other '.join(stopped)}"
        elif relabelled and key[0] == "probe":
            row["verdict"] = "not compared: other labels"
        elif elsewhere and key[2]:
            row["verdict"] = "not compared: another number of layers, so that the site is not the same depth"
        else:
            row |= _difference(one, other)
        rows.append(Row(**row))
    return rows


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """b - a with its interval: distances to the ends of both are squared and added (Newcombe's method)."""
    x, y = one["value"], other["value"]
    if x is None or y is None:
        return {"verdict": SAME if x == y else "not compared: not measured in one of them"}
    ends = (one["low"], one["high"], other["low"], other["high"])
    found: dict[str, Any] = {"difference": y - x}
    if None in ends:
        return {**found, "verdict": SAME if x == y else UNKNOWN}
    low = (y - x) - float(np.hypot(x - ends[1], y - ends[2]))
    high = (y - x) + float(np.hypot(x - ends[0], y - ends[3]))
    found |= {"low": low, "high": high}
    if x == y and ends[:2] == ends[2:]:
        return {**found, "verdict": SAME}
    return {**found, "verdict": DIFFERS if low > 0 or high < 0 else WITHIN}


def _similarity(a: Side, b: Side, *, seed: int) -> tuple[Result, float]:
    """CKA of all sites of one study with all of the other, on the same tokens, and that of shuffled ones."""
    from interp.metrics.similarity import cka_matrix

    stores = a.store(), b.store()
    if stores[0].n_rows != stores[1].n_rows or not all(
        torch.equal(getattr(stores[0], name), getattr(stores[1], name)) for name in ("tokens", "doc", "pos")
    ):
        raise InputError("the stores hold other rows")
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(stores[0].n_rows, generator=generator)[:N_ROWS].sort().values
    rows = [
        {
            str(site): store.rows(site, index).flatten(1).float()
            for site in store.sites
            if _drawn(site, store.sites)
        }
        for store in stores
    ]
    doc = stores[0].doc[index]
    groups = doc if len(doc.unique()) > 1 else None
    found = cka_matrix(*rows, groups=groups)
    mixed = torch.randperm(len(index), generator=generator)
    control = cka_matrix(rows[0], {site: x[mixed] for site, x in rows[1].items()}, n_blocks=0)
    return found, float(np.nanmax(np.abs(np.asarray(control.value))))


def _drawn(site: Any, sites: Any) -> bool:
    """Sites of the comparison: as the geometry station takes them."""
    from interp.study.sampling import residual_sites

    return site in residual_sites(sites)
