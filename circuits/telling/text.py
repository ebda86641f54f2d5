"""The report as Markdown: what a pull request or a notebook cell can hold. Tokens cannot become markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from interp.escaping import code
from interp.escaping import markdown as safe

__all__ = ["edge_names", "markdown"]

LONGEST = 40
"""Edges listed."""


def markdown(record: Mapping[str, Any]) -> str:
    """The whole report, its largest edges only."""
    task, metric, graph, found = (record[k] for k in ("task", "metric", "graph", "faithfulness"))
    clean, corrupted = metric["clean"], metric["corrupted"]
    lines = [
        f"# {safe(record['title'])}",
        "",
        f"{len(graph['chosen'])} of {len(graph['scores'])} edges, scored by {graph['method']} on n = {graph['n']} "
        f"pairs of prompts of the task {safe(task['task'])}.",
        "",
        f"Metric: {safe(metric['convention'])}; clean {_pm(clean)}, corrupted {_pm(corrupted)} (n = {metric['n']}).",
        "",
        "## Prompts",
        "",
        *_table(
            ("clean", "corrupted", "right", "wrong", "metric"),
            (
                (
                    safe(" ".join(row["clean"])),
                    safe(" ".join(row["corrupted"])),
                    safe(", ".join(row["answers"])),
                    safe(", ".join(row["wrong"])),
                    f"{row['clean_metric']:.3f}",
                )
                for row in record["prompts"]
            ),
        ),  # fmt: skip
        "",
        "## Faithfulness",
        "",
        safe(found["convention"]) + f" (n = {found['n']}).",
        "",
        *_table(
            ("edges", "share kept", "95 % interval", "random circuits", "left without it"),
            _curve(found),
        ),
        "",
        f"CPR {found['cpr']:.3f}, CMD {found['cmd']:.3f} (areas over the fraction of edges), "
        f"mean over its logarithm {found['log_area']:.3f}.",
        "",
        "## Largest edges of the circuit",
        "",
        safe(graph["convention"]),
        "",
        *_table(("edge", "score", "standard error", "exact effect"), _edges(graph)),
        "",
        "## What this does not show",
        "",
        *(f"- {safe(one)}" for one in record["caveats"]),
        "",
        "## Provenance",
        "",
        *(f"- {safe(name)}: {code(value)}" for name, value in _facts(record["provenance"])),
        "",
    ]
    return "\n".join(lines)


def _pm(side: Mapping[str, Any]) -> str:
    spread = "" if side["stderr"] is None else f" \N{PLUS-MINUS SIGN} {side['stderr']:.3f}"
    return f"{side['mean']:.3f}{spread}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _curve(found: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    control, intervals = found["control"]["mean"], found["interval"]
    for i, size in enumerate(found["sizes"]):
        low, high = intervals[i] if intervals is not None else (None, None)
        yield (
            str(size), f"{found['value'][i]:.3f}",
            "" if low is None or high is None else f"{low:.3f} to {high:.3f}",
            "" if control is None else f"{control[i]:.3f}", f"{found['completeness'][i]:.3f}",
        )  # fmt: skip


def edge_names(graph: Mapping[str, Any]) -> list[str]:
    """Every edge's name, from a report's graph part."""
    return [
        f"{source}->{destination}"
        for destination, n in zip(graph["destinations"], graph["reads"], strict=True)
        for source in graph["sources"][:n]
    ]


def _edges(graph: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    names, exact = (
        edge_names(graph),
        dict(zip(graph["exact"]["edges"], graph["exact"]["values"], strict=True)),
    )
    ranked = sorted(graph["chosen"], key=lambda edge: -abs(graph["scores"][edge]))
    for edge in ranked[:LONGEST]:
        spread = graph["stderr"]
        yield (
            code(names[edge]), f"{graph['scores'][edge]:.4g}",
            "" if spread is None else f"{spread[edge]:.2g}",
            f"{exact[edge]:.4g}" if edge in exact else "",
        )  # fmt: skip


def _facts(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _facts(item, f"{prefix}{key}.")
        elif item is not None:
            yield f"{prefix}{key}", str(item)
