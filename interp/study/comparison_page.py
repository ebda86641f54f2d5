"""The page of a comparison: curves over the layers, similarity, and every kind of finding side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.report.content import outcome, report
from interp.report.page import write
from interp.results import Result
from interp.sites import Site
from interp.study.sides import DIFFERS, SAME, WITHIN, Hurdle, Row, Side
from interp.study.stations import Plate, Section, Table

__all__ = ["write_page"]

LEAST = 3
"""Sites that a curve needs."""
_STOPS = {
    "differences": "no figure is subtracted from another",
    "similarity": "the two models' activations are not compared",
    "sites": "figures of single sites are not subtracted",
    "probe": "figures of probes are not subtracted",
    "": "figures are compared all the same",
}


def write_page(
    folder: Path,
    a: Side,
    b: Side,
    *,
    hurdles: Sequence[Hurdle],
    rows: Sequence[Row],
    similarity: Result | None,
    shuffled: float | None,
) -> tuple[Path, Path]:
    """Write ``compare.html`` and its JSON twin; return both paths."""
    names = _names(a, b)
    sections = [_overview(names, hurdles, rows)]
    if similarity is not None:
        sections.append(_alike(names, similarity, shuffled))
    sections += [_of_kind(kind, names, rows, a, b) for kind in dict.fromkeys(row.kind for row in rows)]
    facts = [
        (label, f"{_fact(a, label)} | {_fact(b, label)}")
        for label in dict.fromkeys(label for label, _ in (*a.report["facts"], *b.report["facts"]))
        if label not in ("Backend",)
    ]
    page = report(
        f"{names[0]} and {names[1]}",
        subtitle="Two studies, side by side; differences are the second minus the first.",
        facts=facts,
        warnings=[
            f"Other {h.what} ({names[0]}: {h.a}; {names[1]}: {h.b}): {_STOPS[h.stops]}."
            for h in hurdles
            if h.stops
        ],
        notes=[
            f"Other {h.what} ({names[0]}: {h.a}; {names[1]}: {h.b}): {_STOPS['']}."
            for h in hurdles
            if not h.stops
        ],
        sections=[outcome(s.name, s.title, section=s, folder=folder) for s in sections],
        provenance={"a": dict(a.provenance), "b": dict(b.provenance)},
    )
    return write(page, folder, name="compare")


def _names(a: Side, b: Side) -> tuple[str, str]:
    return (a.name, b.name) if a.name != b.name else (f"{a.name} (A)", f"{b.name} (B)")


def _fact(side: Side, label: str) -> Any:
    return dict(side.report["facts"]).get(label, "\N{EN DASH}")


def _overview(names: tuple[str, str], hurdles: Sequence[Hurdle], rows: Sequence[Row]) -> Section:
    judged = [row for row in rows if row.verdict in (SAME, WITHIN, DIFFERS)]
    differing = [row for row in judged if row.verdict == DIFFERS]
    stopped = [h.what for h in hurdles if h.stops == "differences"]
    if stopped:
        what = " and other ".join(stopped)
        summary = f"The studies have other {what}: their figures stand side by side and are not subtracted."
    elif judged and all(row.verdict == SAME for row in judged):
        summary = f"All {len(judged)} figures that both studies have are the same: no difference at all."
    else:
        spanned = [row for row in judged if row.low is not None]
        summary = (
            f"{len(differing)} of {len(spanned)} figures with intervals differ by their 95% intervals, where chance "
            f"alone would give at most about {0.05 * len(spanned):.0f}."
        )
    odd = [
        row
        for row in rows
        if not row.verdict.startswith(("only", "not compared")) and row.clear_a != row.clear_b
    ]
    tables = []
    if differing:
        largest = sorted(differing, key=_standing)[:25]
        tables.append(
            _table(
                "Where they differ most",
                largest,
                names,
                caption="By the size of the difference in half widths of its interval.",
            )
        )
    if odd:
        lines = tuple(
            (r.kind, r.name, r.site, r.measure, "yes" if r.clear_a else "no", "yes" if r.clear_b else "no")
            for r in odd[:25]
        )
        columns = ("kind", "name", "site", "measure", names[0], names[1])
        tables.append(Table(title="Above chance in one of them only", columns=columns, rows=lines))
    return Section(
        name="agreement",
        title="Where the studies agree",
        summary=summary,
        tables=tuple(tables),
        numbers={
            "figures": len(rows),
            "judged": len(judged),
            "differ": len(differing),
            "rows": [_plain(r) for r in rows],
        },
        caveats=(
            "Intervals are combined as if the two studies were independent; they share tokens, so that a difference "
            "has to be larger than it need be.",
            "Each study's intervals are of its own texts and one seed: another training run of the same network is not "
            "in them.",
        ),
    )


def _standing(row: Row) -> float:
    assert row.difference is not None
    assert row.low is not None
    assert row.high is not None
    return -abs(row.difference) / max((row.high - row.low) / 2, 1e-12)


def _alike(names: tuple[str, str], found: Result, shuffled: float | None) -> Section:
    from interp.plots import heatmap

    value = np.asarray(found.value, dtype=float)
    rows, columns = found.ticks
    figure = heatmap(
        value, rows=rows, columns=columns, unit="CKA", span=(0.0, 1.0), x_title=names[1], y_title=names[0],
        spread=None if found.stderr is None else np.asarray(found.stderr),
    )  # fmt: skip
    best = [
        f"{rows[i]} and {columns[int(np.nanargmax(value[i]))]} {np.nanmax(value[i]):.2f}"
        for i in range(len(rows))
    ]
    own = ""
    if rows == columns:
        diagonal = np.diagonal(value)
        own = f" At the same site it runs from {diagonal.min():.2f} to {diagonal.max():.2f}."
    return Section(
        name="similarity",
        title="How alike their layers are",
        summary=f"Most alike (debiased linear CKA on the same {found.n} tokens): {'; '.join(best)}.{own}",
        plates=(
            Plate(
                title="Similarity of the layers of the two models",
                figure=figure,
                caption=(
                    f"1: the same up to rotation and scale. With the tokens of one shuffled it is at most "
                    f"{shuffled:.2g} in size."
                ),
            ),
        ),
        numbers={
            "rows": list(rows), "columns": list(columns), "value": value.tolist(), "n": found.n,
            "stderr": None if found.stderr is None else np.asarray(found.stderr).tolist(),
            "convention": found.convention, "shuffled": shuffled,
        },
        caveats=("Alike arrangements of these tokens; not alike computations.",),
    )  # fmt: skip


def _of_kind(kind: str, names: tuple[str, str], rows: Sequence[Row], a: Side, b: Side) -> Section:
    mine = [row for row in rows if row.kind == kind]
    judged = [row for row in mine if row.verdict in (SAME, WITHIN, DIFFERS)]
    n = sum(row.verdict == DIFFERS for row in judged)
    reasons = sorted({row.verdict for row in mine if row not in judged})
    said = f"{n} of {len(judged)} differ." if judged else "Nothing here is compared."
    if reasons:
        said += f" Others: {'; '.join(reasons)}."
    return Section(
        name=f"kind-{''.join(c if c.isascii() and c.isalnum() else '-' for c in kind)}",
        title=kind[:1].upper() + kind[1:],
        summary=said,
        plates=tuple(_curves(mine, names, a, b)),
        tables=(_table("Side by side", mine, names),),
    )


def _table(title: str, rows: Sequence[Row], names: tuple[str, str], caption: str = "") -> Table:
    lines = tuple(
        (
            " ".join(part for part in (row.name, row.measure) if part), row.site, _digits(row.a), _digits(row.b),
            _digits(row.difference), _digits(row.low), _digits(row.high), row.verdict,
        )
        for row in rows
    )  # fmt: skip
    columns = ("what", "site", names[0], names[1], "difference", "low", "high", "verdict")
    return Table(title=title, columns=columns, rows=lines, caption=caption)


def _curves(rows: Sequence[Row], names: tuple[str, str], a: Side, b: Side) -> list[Plate]:
    """For every measure that both studies have at several sites a curve each; over depth where the layers differ."""
    plates = []
    for key in dict.fromkeys((row.name, row.measure) for row in rows):
        mine = [row for row in rows if (row.name, row.measure) == key and row.site]
        sides = [
            [(row.site, getattr(row, s)) for row in mine if getattr(row, s) is not None] for s in ("a", "b")
        ]
        if min(map(len, sides)) < LEAST:
            continue
        plates.append(
            _curve(" ".join(part for part in key if part), sides, names, a.n_layers == b.n_layers, (a, b))
        )
    return plates


def _curve(title: str, sides: Any, names: tuple[str, str], same: bool, both: tuple[Side, Side]) -> Plate:
    from interp.plots import Series, lines

    if same:
        places = [[Site.parse(site) for site, _ in side] for side in sides]
        order = sorted({*places[0], *places[1]})
        ticks = [str(site) for site in order]
        index = [[order.index(site) for site in side] for side in places]
    else:
        depths = [
            [round(_depth(site, one.n_layers), 3) for site, _ in side]
            for side, one in zip(sides, both, strict=True)
        ]
        order = sorted({*depths[0], *depths[1]})
        ticks = [f"{depth:.0%}" for depth in order]
        index = [[order.index(depth) for depth in side] for side in depths]
    series = []
    for name, side, at in zip(names, sides, index, strict=True):
        y = np.full(len(order), np.nan)
        pairs = zip(at, side, strict=True)
        for i, (_, value) in sorted(pairs, key=lambda pair: Site.parse(pair[1][0]).layer is not None):
            y[i] = value  # of two sites at one depth that of a block stands
        series.append(Series(name=name, y=y))
    figure = lines(ticks, series, x_title="site" if same else "depth", y_title=title)
    figure.update_traces(connectgaps=True)
    return Plate(title=title[:1].upper() + title[1:], figure=figure, half=True)


def _depth(site: str, n_layers: int | None) -> float:
    parsed = Site.parse(site)
    if parsed.layer is None or not n_layers:
        return 0.0 if parsed.kind in ("embed", "pos_embed") else 1.0
    return (
        parsed.layer + (0.0 if parsed.kind == "resid_pre" else 0.5 if parsed.kind == "resid_mid" else 1.0)
    ) / n_layers


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}
