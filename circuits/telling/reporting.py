"""``circuits.report``: a circuit's page, its JSON twin, Markdown, and tables in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.evaluation import Faithfulness, evaluate
from circuits.exact import edge_effects
from circuits.exchange import write_csv
from circuits.graph import Graph
from circuits.shrinking import shrink
from circuits.telling.page import render
from circuits.telling.record import record
from circuits.telling.text import markdown
from interp.errors import InputError
from interp.pages import document
from interp.runs.files import ensure_folder, write_bytes_atomic, write_json_atomic
from interp.runs.provenance import provenance
from interp.showing import Shown, brief

__all__ = ["CircuitReport", "report"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CircuitReport(Shown):
    """Where the files of a report are, and what it says."""

    html: Path
    json: Path
    record: dict[str, Any]
    graph: Graph
    faithfulness: Faithfulness

    def _repr_html_(self) -> str:
        """The page itself, shut into a frame of a notebook: it cannot reach the notebook or the network."""
        framed = document.frame_file(self.html, height=900, title=self.record["title"])
        return Shown._repr_html_(self) if framed is None else framed

    def __repr__(self) -> str:
        return f"CircuitReport({brief(self.record['title'])!r}, {brief(self.html)!r})"


def report(  # one parameter over seven: what is told, and how much of it is measured
    model: Any,
    task: Any,
    graph: Graph,
    *,
    out: str | Path = "report.html",
    faithfulness: Faithfulness | None = None,
    least: float = 0.9,
    check: int = 50,
    seed: int = 0,
    title: str | None = None,
    command: str | None = None,
) -> CircuitReport:
    """Tell a circuit: one HTML page that needs nothing else, and beside it everything on it as files.

    Writes ``NAME.html``; ``NAME.json``, the same exactly, which ``interp verify`` checks; ``NAME.md``;
    ``NAME.edges.csv``; and ``NAME.graph.safetensors`` (:meth:`Graph.load`).

    Parameters
    ----------
    model, task
        The model, and the :class:`interp.tasks.Task` that the graph was scored on.
    graph
        With scores. Where no circuit is chosen yet, :func:`circuits.shrink` chooses the smallest with a faithfulness
        of ``least``.
    out
        The page's path.
    faithfulness
        What :func:`circuits.evaluate` found for this graph; it is evaluated where it is not given.
    check
        So many of the largest edges are measured exactly, unless the graph has exact effects already.
    seed
        Of random circuits and bootstrap samples.
    command
        The command line that made it, for the provenance.

    Raises
    ------
    InputError
        A task without prompts that can be written down, a graph without scores or of another model, an empty circuit.

    Notes
    -----
    Cost: that of :func:`circuits.evaluate` and of ``check`` exact effects where they are not given, and three
    forward passes.
    """
    if not hasattr(task, "describe") or not hasattr(task, "texts"):
        raise InputError(
            f"a report can be checked again, so its prompts must be a Task (interp.tasks.load, .read or Task.of); got "
            f"{type(task).__name__}"
        )
    page = Path(out)
    if page.suffix not in (".html", ".htm"):
        page = page / "report.html"
    ablation = graph.provenance.get("ablation", "corrupted")  # what the scores cut is what is cut here
    found = faithfulness or evaluate(model, graph, task, seed=seed, ablation=ablation)
    if graph.chosen is None:
        graph = shrink(model, graph, task, least=least, ablation=ablation)
    if graph.exact is None and check and graph.method != "exact":
        graph = edge_effects(model, task, edges=graph.order()[:check], graph=graph, ablation=ablation)
    made = record(
        model, task, graph, found, title=title, seed=seed,
        provenance=provenance(model, seed=seed, command=command),
    )  # fmt: skip
    ensure_folder(page.parent)
    twin = page.with_suffix(".json")
    graph.save(page.with_suffix(".graph.safetensors"))
    write_csv(graph, page.with_suffix(".edges.csv"))
    write_bytes_atomic(page.with_suffix(".md"), markdown(made).encode())
    write_json_atomic(twin, made)
    document.write(page, render(made, twin=twin.name))
    return CircuitReport(html=page, json=twin, record=made, graph=graph, faithfulness=found)
