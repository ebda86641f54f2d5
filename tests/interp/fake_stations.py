"""Stations with known behaviour, for tests of the main job and its page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from interp.plots import Series, bars, heatmap, lines
from interp.study.stations import Estimate, Plate, Section, Study, Table

HOSTILE = '</script><script>window.PWN=1</script><img src=x onerror="window.PWN=2">\u2028<!--<script>&lt;\x00'


class Fake:
    """A station that does what it is told and counts how often it ran."""

    def __init__(
        self, name: str, order: int, run: Callable[[Study], Section], *, why_not: str | None = None
    ) -> None:
        self.name, self.title, self.order = name, f"The {name} station", order
        self.why_not, self.body, self.n_runs = why_not, run, 0

    def applies(self, study: Study) -> str | None:
        return self.why_not

    def estimate(self, study: Study) -> Estimate:
        return Estimate(forward_passes=10, seconds=0.5, memory_bytes=1000)

    def run(self, study: Study) -> Section:
        self.n_runs += 1
        return self.body(study)


def section(study: Study | None = None, *, name: str = "good", text: str = "All is well.") -> Section:
    """Three kinds of figure, a table, numbers and a caveat, every text of it ``text``."""
    z = np.linspace(-1, 1, 6).reshape(2, 3)
    plates = (
        Plate(
            title=text,
            figure=heatmap(z, rows=["a", text], columns=["x", "y", text], unit="nats", diverging=True),
            caption=text,
        ),
        Plate(
            title="Lines",
            figure=lines(["a", "b"], [Series(name=text, y=[0.1, 0.2], low=[0.0, 0.1], high=[0.2, 0.3])]),
        ),
        Plate(
            title="Bars", figure=bars(["a", text], [1.0, 2.0], low=[0.5, 1.5], high=[1.5, 2.5], baseline=0.3)
        ),
    )
    table = Table(
        title=text,
        columns=("token", text),
        rows=((text, 1.25), ("b", float("nan")), (None, True)),
        caption=text,
    )
    return Section(
        name=name, title=f"The {name} station", summary=text, plates=plates, tables=(table,),
        numbers={"cka": {"value": 0.5, "n": 12345, "convention": text}}, caveats=(text,),
    )  # fmt: skip


def interrupting(study: Study) -> Section:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def failing(study: Study) -> Section:
    """A bug."""
    raise ZeroDivisionError("by zero <b>")
