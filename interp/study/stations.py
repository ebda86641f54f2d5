"""The nouns of the main job: what a station is given, and what it hands back.

A *station* is one stop of ``interp analyze``: geometry, probe, SAE, circuit, or one that another package brings.
It is an object registered under the entry-point group ``interp.stations``; the main job knows stations only
through the :class:`Station` protocol below, so ``interp`` imports none of the packages above it.
A station computes and returns a :class:`Section`; it writes no page and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from interp.errors import InputError, nearest
from interp.showing import Shown
from interp.study.effort import STANDARD, Effort
from interp.study.findings import Bearings, Finding

__all__ = [
    "GROUP",
    "Broken",
    "Estimate",
    "Leaf",
    "Plate",
    "Section",
    "Station",
    "Study",
    "Table",
    "select",
    "stations",
]

GROUP = "interp.stations"
SPEED = 3e10
"""Multiplications and additions a second in a matrix product: what stations' seconds are stated for. The job measures
the machine's own speed and scales by it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """What every station is given: one model, one set of tokens, and the activations harvested from them."""

    model: Any
    """The :class:`interp.models.Model` under study."""
    tokens: Any
    """:class:`interp.Tokens`; ids and mask ``[batch pos]``."""
    store: Any = None
    """The :class:`interp.ActivationStore` of the layer sites, or None where nothing could be harvested."""
    seed: int = 0
    out: Path
    """A folder the station may write its own files into."""
    progress: bool = False
    task: Any = None
    """:class:`interp.tasks.Task` that the model was made to do, or None."""
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    """Per-token integer labels by name, ``[batch pos]`` each, -100 where a token has none. May be empty."""
    effort: Effort = STANDARD
    """How much work it may be."""
    name: str = ""
    """What the network is called where it ships with the toolkit (``"group:C59"``), else empty."""

    def link(self, page: str, anchor: str = "") -> str:
        """The link from the report to a page (and a place on it) that the station writes into its folder."""
        return f"{self.out.parent.name}/{self.out.name}/{page}{anchor}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plate:
    """One figure of a section: a plotly figure (anything with ``to_plotly_json``), a title, a caption."""

    title: str
    figure: Any
    caption: str = ""
    anchor: str = ""
    """A name by which links on the page find it; plain letters, digits, ``-`` and ``_``."""
    half: bool = False
    """Whether half of the page's width is enough, so that two stand side by side."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """One table of a section. Cells are str, int, float, bool or None; they are shown as data, never as markup."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaf:
    """A page of a station's own, in its folder, that the report links to."""

    title: str
    path: Path
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Section(Shown):
    """What a station hands back: a finding in one sentence, and the figures, tables and numbers behind it."""

    name: str
    title: str
    summary: str
    """One plain sentence with the finding."""
    plates: tuple[Plate, ...] = ()
    tables: tuple[Table, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able; every number with its n, convention and uncertainty beside it."""
    caveats: tuple[str, ...] = ()
    """What this section does not show."""
    leaves: tuple[Leaf, ...] = ()
    findings: tuple[Finding, ...] = ()
    """What was found where, for the index over the layers and for comparisons."""
    bearings: tuple[Bearings, ...] = ()
    """Vectors that other stations' vectors are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """The cost of a station before it runs."""

    forward_passes: float = 0.0
    """Forward passes of one sequence each (a backward pass counts as two)."""
    seconds: float = 0.0
    """Wall time besides the forward passes, on one core of :data:`SPEED`."""
    memory_bytes: int = 0
    """Peak memory above the model's own weights."""


@runtime_checkable
class Station(Protocol):
    """One stop of the main job."""

    @property
    def name(self) -> str:
        """One word, by which it is chosen and its results are kept."""
        ...

    @property
    def title(self) -> str:
        """What the report calls it."""
        ...

    @property
    def order(self) -> int:
        """Stations run in ascending order."""
        ...

    def applies(self, study: Study) -> str | None:
        """None when the station can run, else the reason why not (shown in the report)."""
        ...

    def estimate(self, study: Study) -> Estimate:
        """What :meth:`run` will cost."""
        ...

    def run(self, study: Study) -> Section:
        """Do the work."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Broken:
    """Stands in for a registered station that cannot be imported, so that the others go on without it."""

    name: str
    title: str
    order: int = 1000
    reason: str

    def applies(self, study: Study) -> str | None:
        """Always None: a broken station is a failure to show, not a method that does not apply."""
        return None

    def estimate(self, study: Study) -> Estimate:
        """Nothing is spent on it."""
        return Estimate()

    def run(self, study: Study) -> Section:
        """Raise :class:`InputError` with the reason."""
        raise InputError(self.reason)


def _load(entry: EntryPoint) -> Station:
    try:
        station = entry.load()
    except Exception as error:  # noqa: BLE001  (a plug-in may raise anything on import; it becomes a failed section)
        reason = f"station {entry.name!r} ({entry.value}) cannot be imported: {type(error).__name__}: {error}"
        return Broken(name=entry.name, title=entry.name.capitalize(), reason=reason)
    if not isinstance(station, Station):
        reason = f"station {entry.name!r} ({entry.value}) lacks name, title, order, applies, estimate or run"
        return Broken(name=entry.name, title=entry.name.capitalize(), reason=reason)
    return station


def stations() -> tuple[Station, ...]:
    """Every registered station, in the order they run. One that cannot be imported comes back as :class:`Broken`."""
    loaded = {entry.name: _load(entry) for entry in entry_points(group=GROUP)}
    return tuple(sorted(loaded.values(), key=lambda station: (station.order, station.name)))


def select(names: Sequence[str] | None, *, among: tuple[Station, ...] | None = None) -> tuple[Station, ...]:
    """The stations called ``names`` (all when None), in running order.

    Raises
    ------
    InputError
        A name is not registered; the message says the nearest and all valid ones.
    """
    known = stations() if among is None else among
    if names is None:
        return known
    valid = [station.name for station in known]
    for name in names:
        if name not in valid:
            listed = ", ".join(valid) or "none registered"
            raise InputError(f"no station called {name!r}{nearest(name, valid)} (stations: {listed})")
    return tuple(station for station in known if station.name in names)
