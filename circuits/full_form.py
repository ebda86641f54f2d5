"""What the circuit station adds in its full form: circuits of the tasks that the model can do, and how faithful.

The study's own task gets the whole treatment and a page of its own: edges scored by EAP-IG, the faithfulness curve
beside random circuits, the smallest faithful circuit, its largest edges measured. The other tasks that the model can do
get their smallest faithful circuit in a line of a table. Read next: ``circuit_plates.py``, its figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from circuits.attribution import attribute
from circuits.circuit_plates import anchor_of, attention, composed, curve, nodes_of, site_of
from circuits.evaluation import Faithfulness, evaluate
from circuits.graph import Graph
from circuits.shrinking import shrink
from interp.errors import InputError, InterpError
from interp.study.findings import STREAM, Bearings, Finding
from interp.study.stations import Leaf, Section, Study, Table

__all__ = ["able", "in_full", "n_passes", "tasks_of", "written"]

PAGE = "circuit.html"
N_MAIN, N_OTHER = 48, 32
"""Pairs of prompts of the first task, and of each other."""
LEAST = 0.9
"""The faithfulness of the smallest faithful circuit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """One task's circuit."""

    task: Any
    graph: Graph
    faithfulness: Faithfulness | None = None


def n_passes(study: Study) -> float:
    """Forward passes, in sequences of the study: sizes x circuits for the curve, the search, the exact edges."""
    if study.task is None and study.model.tokenizer is None:
        return 0.0
    length = 16 if study.task is None else int(study.task.clean.ids.shape[1])
    share = length / max(1, int(study.tokens.ids.shape[1]))
    others = 6 if study.name == "mini" else (1 if study.model.tokenizer is not None else 0)
    return share * (220 * N_MAIN + 160 * N_OTHER * others)


def tasks_of(study: Study) -> tuple[list[Any], dict[str, str]]:
    """The study's task and every task of the toolkit that the model can do; and why it cannot be asked the others."""
    from interp.tasks import load
    from interp.tasks.loading import NAMES

    found, lost = [], {}
    if study.task is not None:
        found.append(study.task.select(torch.arange(min(N_MAIN, len(study.task)))))
    if study.model.tokenizer is None:
        return found, lost
    for name in NAMES:
        if any(task.name == name for task in found):
            continue
        try:
            n = N_OTHER if found else N_MAIN
            task = load(name, model=study.model, split="heldout", n=n, seed=study.seed)
        except InterpError as error:
            lost[name] = _brief(error)
            continue
        why_not = able(study.model, task)
        if why_not:
            lost[name] = why_not
        else:
            found.append(task)
    return found, lost


def _brief(error: Exception) -> str:
    """What stands before the first semicolon: of seven tasks no more can be read in one sentence."""
    return str(error).splitlines()[0].partition(";")[0]


def able(model: Any, task: Any) -> str:
    """Why it cannot be said to do the task: the clean prompts' metric, or what corruption takes, is not above 0."""
    with torch.no_grad():
        clean, corrupted = (
            task.metric(model.logits(tokens, batch_size=32)).double().cpu()
            for tokens in (task.clean, task.corrupted)
        )
    asked = [("the clean prompts' metric", clean)] if task.measure != "log_probability" else []
    for what, values in (*asked, ("what corruption takes from the metric", clean - corrupted)):
        low = float(values.mean() - 1.96 * values.std() / len(values) ** 0.5)
        if low <= 0:
            return f"{what} is {float(values.mean()):.2g}, not clearly above 0 (n = {len(values)})"
    return ""


def in_full(section: Section, study: Study) -> Section:
    """The section with the circuits, or with a caveat that says why there are none."""
    try:
        tasks, lost = tasks_of(study)
        if not tasks:
            why = (
                "; ".join(f"{name}: {reason}" for name, reason in lost.items())
                or "it has no tokenizer and no task"
            )
            raise InputError(f"no task of the toolkit suits this model ({why})")
        first = _circuit(study, tasks[0], whole=True)
    except (InterpError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return replace(section, caveats=(*section.caveats, f"No circuit was looked for: {reason}"))
    others = []
    for task in tasks[1:]:
        try:
            others.append(_circuit(study, task, whole=False))
        except (InterpError, RuntimeError) as error:
            lost[task.name] = _brief(error)
    return _added(section, study, [first, *others], lost)


def _circuit(study: Study, task: Any, *, whole: bool) -> _Found:
    graph = attribute(study.model, task, method="eap-ig")
    found = evaluate(study.model, graph, task, seed=study.seed) if whole else None
    return _Found(task=task, graph=shrink(study.model, graph, task, least=LEAST), faithfulness=found)


def _added(section: Section, study: Study, found: list[_Found], lost: Mapping[str, str]) -> Section:
    from circuits.telling.reporting import report

    first = found[0]
    assert first.faithfulness is not None
    page = report(
        study.model,
        first.task,
        first.graph,
        faithfulness=first.faithfulness,
        out=study.out / PAGE,
        seed=study.seed,
    )
    nodes = nodes_of(first.graph)
    looking, lacking = attention(study, first.task, nodes)
    wired, lost_wiring = composed(study, nodes)
    shrunk = first.graph.provenance["shrunk"]
    said = (
        f" The smallest circuit of {first.task.name} that keeps {LEAST:.0%} of it has "
        f"{_n_edges(first.graph)} of {first.graph.n_edges} edges and {len(nodes)} heads and MLPs "
        f"(faithfulness {shrunk['faithfulness']:.2f})."
    )
    leaf = Leaf(
        title=f"The circuit of {first.task.name} on a page of its own",
        path=page.html,
        caption="Graph, prompts, attention patterns, faithfulness beside random circuits.",
    )
    anchors = {plate.anchor for plate in looking}
    directions, undirected = written(study, first.task, nodes, anchors)
    return replace(
        section,
        summary=section.summary + said,
        leaves=(*section.leaves, leaf),
        plates=(*section.plates, curve(first.faithfulness), *looking, *wired),
        tables=(*section.tables, _tasks(found), _parts(nodes)),
        numbers={**section.numbers, "circuits": {one.task.name: _record(one) for one in found}},
        findings=(*section.findings, *_findings(study, found, anchors)),
        bearings=(*section.bearings, *directions),
        caveats=(
            *section.caveats,
            *lacking,
            *lost_wiring,
            *undirected,
            "The circuit is the best of one ranking (EAP-IG) at each size; other methods may find a smaller one.",
            *([f"Tasks not asked: {'; '.join(f'{k} ({v})' for k, v in lost.items())}."] if lost else []),
        ),
    )


def _n_edges(graph: Graph) -> int:
    assert graph.chosen is not None
    return int(graph.chosen.sum())


def _findings(study: Study, found: list[_Found], anchors: set[str]) -> tuple[Finding, ...]:
    """The parts of the first circuit, and each task's size and faithfulness."""
    first, parts = found[0], []
    for node, score in nodes_of(first.graph).items():
        href = f"#{anchor_of(node)}" if anchor_of(node) in anchors else study.link(PAGE)
        parts.append(
            Finding(
                kind="circuit",
                name=node,
                site=site_of(node),
                measure=f"on {first.task.name}, by EAP-IG",
                value=score,
                n=first.graph.n,
                href=href,
            )  # fmt: skip
        )
    for one in found:
        shrunk = one.graph.provenance["shrunk"]
        for measure, value in (
            (f"edges keep {LEAST:.0%}", float(_n_edges(one.graph))),
            ("faithfulness of the circuit", float(shrunk["faithfulness"])),
        ):
            parts.append(
                Finding(
                    kind="circuit",
                    name=one.task.name,
                    site="",
                    measure=measure,
                    value=value,
                    n=one.graph.n,
                    href="#tasks",
                    shown=measure.startswith("edges"),
                )  # fmt: skip
            )
    return tuple(parts)


@torch.no_grad()
def written(
    study: Study, task: Any, nodes: Mapping[str, float], anchors: set[str]
) -> tuple[tuple[Bearings, ...], tuple[str, ...]]:
    """What each part writes at the last token on clean prompts, beyond what it writes there on corrupted ones.

    And a caveat that names the parts whose writing cannot be read here.
    """
    found, lost = [], []
    for node in nodes:
        try:
            (site,) = study.model.find(site_of(node, written=True))
            sides = [
                study.model.capture(t, site, batch_size=32)[site].cpu() for t in (task.clean, task.corrupted)
            ]
        except InterpError as error:  # a backend without the written form of a head
            lost.append(f"{node} ({_brief(error)})")
            continue
        rows, last = torch.arange(len(task)), task.clean.lengths.long().cpu() - 1
        change = (sides[0] - sides[1])[rows, last].reshape(len(task), -1).double().mean(0)
        if float(change.norm()) > 0 and change.numel() == study.model.d_model:
            href = f"#{anchor_of(node)}" if anchor_of(node) in anchors else study.link(PAGE)
            found.append(
                Bearings(
                    kind="circuit part",
                    space=STREAM,
                    site=str(site),
                    names=(node,),
                    vectors=change[None],
                    hrefs=(href,),
                    written=True,
                )  # fmt: skip
            )
    said = (f"Parts without a direction to compare: {'; '.join(lost)}.",) if lost else ()
    return tuple(found), said


def _tasks(found: list[_Found]) -> Table:
    rows = []
    for one in found:
        shrunk = one.graph.provenance["shrunk"]
        nodes = list(nodes_of(one.graph))
        rows.append(
            (
                one.task.name, len(one.task), _n_edges(one.graph), one.graph.n_edges,
                round(float(shrunk["faithfulness"]), 3), ", ".join(nodes[:8]) + (" ..." if nodes[8:] else ""),
            )
        )  # fmt: skip
    return Table(
        title="Circuits of the tasks that the model can do",
        anchor="tasks",
        columns=(
            "task",
            "prompts",
            "edges",
            "of",
            "faithfulness",
            "heads and MLPs, the most important first",
        ),
        rows=tuple(rows),
        caption=(
            f"Edges scored by EAP-IG; the fewest from which on every larger circuit tried keeps {LEAST:.0%} of what "
            "the network has over nothing."
        ),
    )


def _parts(nodes: Mapping[str, float]) -> Table:
    rows = tuple((node, site_of(node), float(f"{score:.4g}")) for node, score in nodes.items())
    return Table(
        title="Parts of the first circuit",
        columns=("part", "site", "score"),
        rows=rows,
        caption="The sum of a part's outgoing scores: about what the metric changes by when it is corrupted.",
    )


def _record(one: _Found) -> dict[str, Any]:
    shrunk, found = one.graph.provenance["shrunk"], one.faithfulness
    record: dict[str, Any] = {
        "n": one.graph.n, "edges": _n_edges(one.graph), "of": one.graph.n_edges,
        "faithfulness": float(shrunk["faithfulness"]), "least": LEAST, "convention": one.graph.convention,
        "parts": nodes_of(one.graph),
    }  # fmt: skip
    if found is not None:
        record["curve"] = {
            "edges": found.kept.tolist(), "value": np.asarray(found.value).tolist(),
            "interval": None if found.interval is None else found.interval.tolist(),
            "random": found.control.tolist(), "cpr": found.cpr, "cmd": found.cmd,
        }  # fmt: skip
    return record
