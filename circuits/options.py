"""The options that only the circuit commands share, and the question that they make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from interp.commands.invocation import require_file
from interp.commands.options import METHODS, TASKS, choices

__all__ = [
    "Ablation", "Check", "Grouping", "Least", "Method", "Pairs", "Split", "Steps", "Task", "question", "require_pairs",
]  # fmt: skip

_TASK = f"A task ({', '.join(TASKS)}), a file of pairs, 'own' (what an embedded network was made for), or 'planted'."
Task = Annotated[str, typer.Argument(help=_TASK, autocompletion=choices(*TASKS, "own", "planted"))]
Method = Annotated[
    Literal["eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "ifr", "exact"],
    typer.Option(help="How edges are scored.", autocompletion=choices(*METHODS)),
]
Steps = Annotated[int, typer.Option(min=1, help="Points of the eap-ig methods.")]
Pairs = Annotated[int, typer.Option("--n", min=2, help="Pairs of prompts of a named task.")]
Split = Annotated[Literal["train", "heldout"], typer.Option(help="Of a named task.")]
Ablation = Annotated[Literal["corrupted", "zero", "mean"], typer.Option(help="What cut edges carry.")]
Least = Annotated[float, typer.Option(help="The faithfulness that the circuit must reach.")]
Check = Annotated[int, typer.Option(min=0, help="Largest edges to measure exactly.")]
Grouping = Annotated[Literal["ungrouped", "grouped"], typer.Option(help="How keys and values count.")]


def require_pairs(task: str) -> None:
    """Refuse a file of pairs that is not there before anything is loaded or written."""
    if Path(task).suffix:
        require_file(Path(task), what="file of pairs")


def question(
    task: str, model: str, *, device: str, backend: Any, n: int, split: str, seed: int
) -> tuple[Any, Any]:
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
    loaded = load(model, device=device, backend=backend)
    if task == "own":
        own = embedded(model).task(n, seed=seed) if model in names() else None
        if own is None:
            raise InputError(f"{model!r} is no embedded network with a task of its own: name a task")
        return loaded, own
    if Path(task).suffix:
        return loaded, tasks.read(task, model=loaded)
    return loaded, tasks.load(task, model=loaded, n=n, split=split, seed=seed)  # type: ignore[arg-type]
