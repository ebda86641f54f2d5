"""Checking a report: its parts against their hashes, its model and prompts against theirs, its numbers by doing them
again.

``circuits.verify("report.json")``; ``interp verify report.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.attribution import attribute
from circuits.evaluation import evaluate
from circuits.exact import edge_effects
from circuits.graph import Graph
from circuits.layout import Layout
from circuits.telling.record import PARTS, SCHEMA, sha256_of
from circuits.telling.text import edge_names
from interp.errors import InputError, ModelError, StoreError
from interp.escaping import visible
from interp.runs.files import read_json
from interp.runs.provenance import versions
from interp.showing import Shown
from interp.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Difference", "Verdict", "graph_of", "read", "verify"]

RELATIVE = 1e-4
"""Numbers agree if they differ by less than this share of the largest score: sums run in another order elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field that is not what the report says."""

    field: str
    said: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.field}: the report says {_short(self.said)}, found {_short(self.found)}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Verdict(Shown):
    """What was checked, and what differs; empty if the report is verified."""

    title: str
    differences: tuple[Difference, ...]
    checked: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def __str__(self) -> str:
        if self.ok:
            return f"VERIFIED {visible(self.title)}: {'; '.join(map(visible, self.checked))}"
        return "\n".join([f"NOT VERIFIED {visible(self.title)}", *(visible(one) for one in self.differences)])

    def to_frame(self) -> pd.DataFrame:
        """A row per field that differs: what the report says, and what was found."""
        import pandas as pd

        rows = [(one.field, _short(one.said), _short(one.found)) for one in self.differences]
        return pd.DataFrame(rows, columns=pd.Index(["field", "said", "found"]))

    def _listing(self) -> pd.DataFrame | None:
        return None if self.ok else self.to_frame()


def read(path: str | Path) -> dict[str, Any]:
    """A report from its JSON twin.

    Raises
    ------
    StoreError
        The file is missing, no JSON, no circuit report, of a later schema, or lacks a part.
    """
    record = read_json(path)
    if not isinstance(record, dict) or not str(record.get("schema", "")).startswith(SCHEMA.split("/")[0]):
        raise StoreError(f"{path} is no circuit report")
    if record["schema"] != SCHEMA:
        raise StoreError(f"{path} has schema {record['schema']!r}; this version reads {SCHEMA!r}")
    lacking = [part for part in (*PARTS, "title", "provenance") if part not in record]
    if lacking:
        raise StoreError(f"{path} lacks its part {lacking[0]!r}")
    return record


def graph_of(record: Mapping[str, Any]) -> Graph:
    """The graph that a report holds (without single examples' scores).

    Raises
    ------
    StoreError
        Its arrays do not fit its layout.
    """
    held = record["graph"]
    try:
        layout = Layout.from_dict(held["layout"])
        chosen = np.zeros(layout.n_edges, dtype=bool)
        chosen[held["chosen"]] = True
        exact = np.full(layout.n_edges, np.nan)
        exact[held["exact"]["edges"]] = held["exact"]["values"]
        stderr = held["stderr"]
        return Graph(
            layout=layout,
            scores=np.array(held["scores"], dtype=np.float64),
            variance=None if stderr is None else np.array(stderr, dtype=np.float64) ** 2 * held["n"],
            exact=exact if held["exact"]["edges"] else None,
            chosen=chosen,
            n=held["n"],
            method=held["method"],
            convention=held["convention"],
            provenance=held["how"],
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StoreError(f"the report's graph is damaged: {error}") from error


def verify(
    report: str | Path | Mapping[str, Any], *, model: Any = None, k: int = 8, seed: int = 0
) -> Verdict:
    """Do a report again where it can be done, and name every field that differs.

    Hashes of all parts, versions, the model's weights and configuration, the prompts, the displayed prompts, every
    score of a gradient method (``k`` edges where scores were measured one by one), ``k`` of the exact effects and
    the faithfulness at two sizes.

    Parameters
    ----------
    report
        The JSON twin, or the record itself.
    model
        The model, where the report's name does not load it.

    Raises
    ------
    StoreError
        The file is no circuit report, or a damaged one.
    ModelError
        The model that it names is not there.

    Notes
    -----
    Cost: the attribution once, ``k`` exact effects, and two circuits.
    """
    record = dict(report) if isinstance(report, Mapping) else read(report)
    said = record["provenance"]
    found = [*_hashes(record), *_versions(said)]
    model = _model(said, model)
    weights = list(_weights(said, model))
    task, prompts = _prompts(record)
    found += [*weights, *prompts]
    checked = [f"{len(PARTS)} parts", "versions", "weights", f"{record['task']['n']} pairs of prompts"]
    if task is not None and not weights and not prompts:
        graph = graph_of(record)
        found += _scores(record, graph, model, task, k, seed)
        found += _exact(record, graph, model, task, k, seed)
        found += _faithful(record, graph, model, task, seed)
        measured = min(k, len(record["graph"]["exact"]["edges"]))
        checked += ["scores", f"{measured} exact effects", "faithfulness at 2 sizes"]
    return Verdict(title=record["title"], differences=tuple(found), checked=tuple(checked))


def _hashes(record: Mapping[str, Any]) -> Iterator[Difference]:
    known = record["provenance"].get("parts", {})
    for part in PARTS:
        made = sha256_of(record[part])
        if known.get(part) != made:
            yield Difference(field=f"provenance.parts.{part}", said=known.get(part), found=made)


def _versions(said: Mapping[str, Any]) -> Iterator[Difference]:
    now, then = versions(), said.get("versions", {})
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            yield Difference(field=f"provenance.versions.{name}", said=then.get(name), found=now.get(name))


def _model(said: Mapping[str, Any], model: Any) -> Any:
    from interp import load

    known = said.get("model") or {}
    if model is not None:
        return model if hasattr(model, "describe") else load(model)
    try:
        return load(str(known.get("name")), backend=known.get("backend", "auto"))
    except (ModelError, InputError) as error:
        raise ModelError(
            f"the report's model {known.get('name')!r} cannot be loaded, so nothing can be done again (give model=, or "
            f"--model): {error}"
        ) from error


def _weights(said: Mapping[str, Any], model: Any) -> Iterator[Difference]:
    now = model.describe()
    for name in ("weights_sha256", "config_sha256"):
        if now[name] != said["model"].get(name):
            yield Difference(field=f"provenance.model.{name}", said=said["model"].get(name), found=now[name])


def _prompts(record: Mapping[str, Any]) -> tuple[Any, list[Difference]]:
    try:
        task = Task.from_lines(record["pairs"], source="pairs")
    except StoreError as error:
        return None, [Difference(field="pairs", said="prompts and answers with a hash", found=str(error))]
    differences = []
    now = task.describe()["prompts_sha256"]
    if now != record["task"].get("prompts_sha256"):
        differences.append(
            Difference(field="task.prompts_sha256", said=record["task"].get("prompts_sha256"), found=now)
        )
    show = task.clean.show
    for i, row in enumerate(record["prompts"]):
        for side, tokens in (("clean", task.clean), ("corrupted", task.corrupted)):
            shown = [show(int(t)) for t in tokens.ids[i][tokens.mask[i]]]
            if shown != row.get(side):
                differences.append(Difference(field=f"prompts[{i}].{side}", said=row.get(side), found=shown))
    return task, differences


def _scores(
    record: Mapping[str, Any], graph: Graph, model: Any, task: Any, k: int, seed: int
) -> list[Difference]:
    how, held = record["graph"]["how"], record["graph"]
    if held["method"] == "exact":
        rng = np.random.default_rng(seed)
        edges = np.sort(rng.choice(graph.n_edges, size=min(k, graph.n_edges), replace=False))
        again = edge_effects(
            model, task, edges=edges, gqa=graph.layout.gqa, ablation=how.get("ablation", "corrupted")
        ).exact
    else:
        edges = np.arange(graph.n_edges)
        again = attribute(
            model, task, method=held["method"], steps=how.get("steps", 5), gqa=graph.layout.gqa, keep=False,
            ablation=how.get("ablation", "corrupted"),
        ).scores  # fmt: skip
    assert again is not None
    return _apart(record, "graph.scores", edges, graph.require_scores()[edges], again[edges])


def _exact(
    record: Mapping[str, Any], graph: Graph, model: Any, task: Any, k: int, seed: int
) -> list[Difference]:
    measured = np.array(record["graph"]["exact"]["edges"], dtype=int)
    if not len(measured) or record["graph"]["method"] == "exact":
        return []
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.choice(measured, size=min(k, len(measured)), replace=False))
    ablation = record["graph"]["how"].get("ablation", "corrupted")
    again = edge_effects(model, task, edges=edges, gqa=graph.layout.gqa, ablation=ablation).exact
    assert again is not None
    assert graph.exact is not None
    return _apart(record, "graph.exact", edges, graph.exact[edges], again[edges])


def _apart(
    record: Mapping[str, Any], field: str, edges: np.ndarray, said: np.ndarray, found: np.ndarray
) -> list[Difference]:
    size = max(float(np.abs(found).max()), 1e-12)
    wrong = np.flatnonzero(~(np.abs(said - found) <= RELATIVE * size))
    names = edge_names(record["graph"]) if len(wrong) else []
    ranked = wrong[np.argsort(-np.abs(said - found)[wrong])][:10]
    return [
        Difference(field=f"{field}[{names[edges[i]]}]", said=float(said[i]), found=float(found[i]))
        for i in ranked
    ]


def _faithful(record: Mapping[str, Any], graph: Graph, model: Any, task: Any, seed: int) -> list[Difference]:
    held = record["faithfulness"]
    at = np.random.default_rng(seed).permutation(len(held["sizes"]))[:2]
    sizes = [held["sizes"][i] for i in at]
    again = evaluate(
        model, graph, task, sizes=sizes, by=held["by"], ablation=held["ablation"], n_random=0, n_draws=2
    )
    return [
        Difference(field=f"faithfulness.value[{size} edges]", said=held["value"][i], found=float(value))
        for i, size, value in zip(at, sizes, np.asarray(again.value), strict=True)
        if not abs(held["value"][i] - value) <= 10 * RELATIVE * max(1.0, abs(value))
    ]


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 90 else f"{text[:87]}..."
