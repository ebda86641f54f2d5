"""A reading as figures and tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from circuits.groups.measures import Measures
from interp.errors import InputError
from interp.study.stations import Plate, Section, Table

__all__ = ["section_of", "write_page"]

CAVEATS = (
    "Irreps and cosets describe the same functions from two sides: both readings may hold at once.",
    "A share of variance is no share of behaviour; the ablations are.",
)


def section_of(reading: Measures) -> Section:
    """One sentence, the figures, the tables, all numbers."""
    explained, residual = reading.logits["explained"], reading.logits["residual"]
    named = ", ".join(reading.key) or "no irrep beyond what a lookup table has"
    summary = (
        f"{reading.name} computes {reading.word} in {reading.group} ({reading.accuracy['all']:.2%} of {reading.n} "
        f"pairs right) with {named}: irreps carry {explained:.1%} of its logits' variance, {residual:.1%} depends on "
        "more than the answer's distance in the group."
    )
    return Section(
        name="group",
        title="The algorithm of a group network",
        summary=summary,
        plates=tuple(_plates(reading)),
        tables=tuple(_tables(reading)),
        numbers=reading.to_json(),
        caveats=(*CAVEATS, *(f"Not measured: {what}: {why}." for what, why in reading.absent.items())),
    )


def _plates(reading: Measures) -> Iterator[Plate]:
    from interp.plots import Series, bars, heatmap, lines

    labels = reading.irreps
    value, chance = np.asarray(reading.value, dtype=float), np.asarray(reading.chance, dtype=float)
    similarity = lines(
        labels,
        [Series(name="similarity", y=value), Series(name="lookup table", y=chance, baseline=True)],
        x_title="irrep",
        y_title="cosine with the logits",
    )
    yield Plate(title="Logit similarity", figure=similarity, caption=reading.rule)
    if reading.tables:
        rows = [*reading.tables, *(f"hidden {name}" for name in reading.hidden)]
        shares = np.stack([*reading.tables.values(), *reading.hidden.values()])
        figure = heatmap(shares, rows=rows, columns=labels, unit="share", span=(0.0, 1.0))
        yield Plate(title="Where the irreps are", figure=figure, caption="Weight tables sum to 1 each.")
    if reading.ablations:
        names = list(reading.ablations)
        figure = bars(names, [reading.ablations[name]["accuracy"] for name in names], y_title="accuracy")
        yield Plate(
            title="Accuracy after ablation", figure=figure, caption="Irreps projected out of weights."
        )
    if reading.neurons:
        yield _neurons(reading)
    if reading.fourier:
        yield _frequencies(reading)
    if reading.triples and reading.inside is not None:
        answers = np.asarray(reading.triples["shares"]).sum(2)
        figure = heatmap(
            answers, rows=labels, columns=labels, x_title="irrep of b", y_title="irrep of a", unit="share"
        )
        caption = f"Summed over the answer's irreps. {reading.inside:.1%} lies in triples that fusion allows the word."
        yield Plate(title="Logits by irreps of a and b", figure=figure, caption=caption)


def _neurons(reading: Measures) -> Plate:
    from interp.plots import Series, lines

    alive = np.asarray(reading.neurons["alive"], dtype=bool)
    purity = np.sort(np.asarray(reading.neurons["purity"])[alive])[::-1]
    series = [
        Series(name="purity", y=purity),
        Series(name="chance", y=np.full(len(purity), reading.chance_purity), baseline=True),
    ]
    places = list(range(len(purity)))
    figure = lines(places, series, x_title="neuron, by purity", y_title="share in one irrep")
    return Plate(title="How purely neurons belong to one irrep", figure=figure)


def _frequencies(reading: Measures) -> Plate:
    from interp.plots import Series, lines

    names = ("left", "right", "unembed")
    power = [np.asarray(reading.fourier[name], dtype=float) for name in names]
    series = [Series(name=name, y=p / p.sum()) for name, p in zip(names, power, strict=True)]
    frequency = list(range(1, len(power[0]) + 1))
    figure = lines(frequency, series, x_title="frequency", y_title="share of the table's variance")
    sparsity = ", ".join(f"{name} {reading.fourier[f'{name}_gini']:.2f}" for name in names)
    caption = f"Gini coefficient of the norms (0: all frequencies alike): {sparsity}."
    return Plate(title="Frequencies of the weight tables", figure=figure, caption=caption)


def _tables(reading: Measures) -> list[Table]:
    frame = reading.to_frame()
    rows = [tuple(_cell(x) for x in row) for row in frame.itertuples(index=False)]
    tables = [Table(title="Irreps", columns=tuple(frame.columns), rows=tuple(rows))]
    for title, record in (
        ("Losses (nats)", reading.losses),
        ("Margins", reading.margins),
        ("Clock or pizza", reading.clock),
    ):
        if record:
            cells = tuple((name, float(number)) for name, number in record.items())
            tables.append(Table(title=title, columns=("measure", "value"), rows=cells))
    if reading.ablations:
        cells = tuple((name, row["loss"], row["accuracy"]) for name, row in reading.ablations.items())
        tables.append(Table(title="Ablations", columns=("tables", "loss (nats)", "accuracy"), rows=cells))
    if reading.cosets:
        tables.append(_coset_table(reading))
    return tables


def _coset_table(reading: Measures) -> Table:
    rows = []
    for side in ("left", "right"):
        orders = np.asarray(reading.cosets[f"{side}_order"])
        for order in np.unique(orders)[::-1].tolist():
            here = orders == order
            best, null = (np.asarray(reading.cosets[f"{side}_{name}"])[here] for name in ("best", "null"))
            live = np.isfinite(best)
            if live.any():
                name = str(order) if order else "none"
                rows.append((side, name, int(live.sum()), float(best[live].mean()), float(null[live].mean())))
    columns = ("operand", "order of the subgroup", "neurons", "best corrected share", "shuffled")
    return Table(
        title="Cosets",
        columns=columns,
        rows=tuple(rows),
        caption="The largest subgroup on whose cosets a neuron's response is constant (corrected share >= 0.95).",
    )


def _cell(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def write_page(reading: Measures, path: str | Path) -> Path:
    """Write the page, and its JSON twin beside it.

    Raises
    ------
    InputError
        The path does not end in .html.
    """
    from interp.report import content, page

    path = Path(path)
    if path.suffix != ".html":
        raise InputError(f"a page is written to a file ending in .html, got {path.name!r}")
    section = content.outcome("group", "The algorithm", section=section_of(reading), seconds=reading.seconds)
    record = content.report(
        f"{reading.name} on {reading.group}",
        sections=[section],
        facts=(
            ("group", reading.group),
            ("word", reading.word),
            ("key irreps", ", ".join(reading.key) or "none"),
        ),
        provenance=reading.provenance,
    )
    return page.write(record, path.parent, name=path.stem)[0]
