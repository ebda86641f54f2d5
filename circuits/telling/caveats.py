"""What a reader of a circuit should keep in mind, worked out from the numbers of the report itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["caveats"]

FEW = 30
"""Fewer examples than this make wide standard errors."""


def caveats(parts: Mapping[str, Any]) -> list[str]:
    """One sentence each, the gravest first."""
    return [*_faithful(parts["faithfulness"]), *_scores(parts), *_estimates(parts), *_always(parts)]


def _faithful(found: Mapping[str, Any]) -> Iterator[str]:
    values, control = found["value"], found["control"]["mean"]
    if found["smallest"]["0.9"] is None:
        yield f"No circuit tried keeps 90 % of the behaviour: the best has a faithfulness of {max(values):.2f}."
    if max(values) > 1.05:
        yield (
            f"Some circuits overshoot (faithfulness up to {max(values):.2f}): what they leave out works against the "
            "task, so more than 1 does not mean better than the network."
        )
    if control is not None:
        size = found["smallest"]["0.9"]
        at = next((i for i, k in enumerate(found["sizes"]) if size is not None and k >= size), None)
        if at is not None and at < len(values) - 1 and control[at] > 0.5 * values[at]:
            yield (
                f"Random circuits of {found['sizes'][at]} edges keep {control[at]:.0%} as well: being faithful at that "
                "size says little about which edges matter."
            )


def _scores(parts: Mapping[str, Any]) -> Iterator[str]:
    graph, stable = parts["graph"], parts["stability"]
    if graph["n"] < FEW:
        yield f"{graph['n']} examples are few: standard errors are wide and themselves uncertain."
    if graph["stderr"] is not None:
        scores, stderr = (np.array(graph[k], dtype=float)[graph["chosen"]] for k in ("scores", "stderr"))
        unsure = int((np.abs(scores) < 1.96 * stderr).sum())
        if unsure:
            yield (
                f"{unsure} of the circuit's {len(scores)} edges have a score whose 95 % interval holds zero; with "
                "other examples they may be left out."
            )
    if stable is None:
        yield "How far the circuit depends on which examples were drawn is not known: their scores were not kept."
    elif stable["jaccard"] < 0.8:
        yield (
            f"Drawing the examples again changes the circuit: two bootstrap samples share {stable['jaccard']:.0%} of "
            f"their edges (two random circuits of that size: {stable['chance']:.0%})."
        )


def _estimates(parts: Mapping[str, Any]) -> Iterator[str]:
    graph, calibration = parts["graph"], parts["calibration"]
    if graph["method"] == "exact":
        return
    measured = len(graph["exact"]["edges"])
    if not measured:
        yield "Scores are linear estimates; none was checked by cutting its edge."
        return
    if calibration is None:
        return
    if calibration["r2"] < 0.8 or not 0.5 < calibration["slope"] < 2:
        yield (
            f"Scores are linear estimates and are off here: on the {measured} edges measured exactly, effects are "
            f"{calibration['slope']:.2f} times the estimates with r\N{SUPERSCRIPT TWO} = {calibration['r2']:.2f}. "
            "Where a softmax or a normalisation is saturated the gradient misses what cutting would do."
        )


def _always(parts: Mapping[str, Any]) -> Iterator[str]:
    layout = parts["graph"]["layout"]
    if layout["gqa"] == "ungrouped" and any(block[0] != block[1] for block in layout["blocks"]):
        yield (
            "Query heads share keys and values in this model, but are counted as if each had its own (the published "
            "convention)."
        )
    elif layout["gqa"] == "grouped":
        yield "Keys and values are counted by group: one edge into a group serves several query heads."
    corruption = parts["task"].get("corruption")
    yield (
        "The circuit is one of the difference between the clean and the corrupted prompts"
        f"{f' ({corruption})' if corruption else ''}; what both have in common is invisible to it."
    )
    yield (
        "Edges are measured one at a time: parts that stand in for each other can each look unimportant, and "
        "attention patterns describe where a head looks, not what it is worth."
    )
