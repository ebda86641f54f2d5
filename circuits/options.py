"""The options that the circuit commands share, and the question that they make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = [
    "AsJson",
    "Check",
    "Device",
    "Grouping",
    "Least",
    "Method",
    "Pairs",
    "Seed",
    "Split",
    "Steps",
    "question",
]

Method = Annotated[
    Literal["eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "ifr", "exact"],
    typer.Option(help="How edges are scored."),
]
Steps = Annotated[int, typer.Option(min=1, help="Points of the eap-ig methods.")]
Pairs = Annotated[int, typer.Option(min=2, help="Pairs of prompts of a named task.")]
Split = Annotated[str, typer.Option(help="Of a named task: train or heldout.")]
Least = Annotated[float, typer.Option(help="The faithfulness that the circuit must reach.")]
Check = Annotated[int, typer.Option(min=0, help="Largest edges to measure exactly.")]
Grouping = Annotated[str, typer.Option(help="ungrouped or grouped keys and values.")]
Seed = Annotated[int, typer.Option(min=0, help="For everything that is drawn.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")]


def question(task: str, model: str, *, device: str, n: int, split: str, seed: int) -> tuple[Any, Any]:
    """The model, and what is asked of it: a named task, a file of pairs, planted trials, or a network's own task."""
    from interp import load, tasks
    from interp.errors import InputError
    from interp.toys import embedded, names, planted

    if task == "planted" or model.startswith("planted:"):
        if task != "planted" or not model.startswith("planted:"):
            raise InputError(
                "planted circuits have prompts of their own: interp circuit find planted --model planted:two-hop"
            )
        circuit = planted(model.removeprefix("planted:"))
        return load(model, device=device), circuit.task(n, seed=seed)
    loaded = load(model, device=device)
    if task == "own":
        own = embedded(model).task(n, seed=seed) if model in names() else None
        if own is None:
            raise InputError(f"{model!r} is no embedded network with a task of its own: name a task")
        return loaded, own
    if Path(task).suffix:
        return loaded, tasks.read(task, model=loaded)
    return loaded, tasks.load(task, model=loaded, n=n, split=split, seed=seed)  # type: ignore[arg-type]
