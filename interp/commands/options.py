"""The options that commands share: one name, one meaning, one text of help, wherever they stand.

A command writes ``seed: Seed = 0`` in its signature. What may be chosen here is also what a shell completes; it is
written out, because asking the registries would import torch, and a test holds the lists equal to theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "METHODS",
    "NETWORKS",
    "PROBES",
    "TASKS",
    "AsJson",
    "Backend",
    "BatchSize",
    "Device",
    "DryRun",
    "MaxTokens",
    "Model",
    "ModelOption",
    "NeededSites",
    "NeededTexts",
    "Preset",
    "Resume",
    "Seed",
    "Sites",
    "Texts",
    "Window",
    "choices",
]

NETWORKS = (
    "mini", "group:C59", "group:D15", "group:S4", "group:S5", "induction", "planted:induction", "planted:previous",
    "planted:two-hop", "planted:distractor", "planted:backup", "superposition:dense", "superposition:many",
    "superposition:pairs", "superposition:pentagon",
)  # fmt: skip
"""The embedded networks."""
TASKS = (
    "ioi", "greater_than", "docstring", "gender", "sva", "induction", "calendar",
)  # fmt: skip
"""The tasks that go by name."""
METHODS = ("eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "ifr", "exact")
"""How a circuit's edges are scored."""
PROBES = ("logistic", "lda", "ridge", "mass_mean")

_Backends = Literal["auto", "transformers", "transformer_lens", "nnsight", "torch"]


def choices(*names: str) -> Callable[[str], list[str]]:
    """What a shell offers for a word that begins so: those of ``names`` that do."""

    def offer(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return offer


_MODEL = "A folder, a hub name, or an embedded network such as mini, group:C59 or planted:induction."
Model = Annotated[str, typer.Argument(help=_MODEL, autocompletion=choices(*NETWORKS))]
ModelOption = Annotated[str, typer.Option(help=_MODEL, autocompletion=choices(*NETWORKS))]
_TEXTS = "What the model reads: .jsonl with a field 'text', or .txt with blank lines between texts."
Texts = Annotated[Path | None, typer.Option(help=_TEXTS, show_default="an embedded network's own inputs")]
NeededTexts = Annotated[Path, typer.Option(help=_TEXTS)]
_SITES = "Where to read, such as 'blocks.*.hook_resid_post'; may be repeated."
Sites = Annotated[list[str] | None, typer.Option(metavar="GLOB", help=_SITES)]
NeededSites = Annotated[list[str], typer.Option(metavar="GLOB", help=_SITES)]
Preset = Annotated[
    Literal["quick", "standard", "deep"],
    typer.Option(
        help="quick: a first look; standard; deep: every station's full form, with pages of their own."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="For everything that is drawn.")]
Device = Annotated[
    str,
    typer.Option(
        help="Where the model runs: auto, cpu, cuda, cuda:1, mps.",
        autocompletion=choices("auto", "cpu", "cuda", "mps"),
    ),
]
Backend = Annotated[_Backends, typer.Option(help="The library that runs the model.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Windows a forward pass.")]
MaxTokens = Annotated[int, typer.Option(min=2, help="Tokens to read, at most.")]
Window = Annotated[
    int | None,
    typer.Option(
        "--context",
        min=2,
        help="Tokens in a window; longer texts are read in several.",
        show_default="the model's, within bounds",
    ),
]
Resume = Annotated[bool, typer.Option(help="Go on with what an earlier run left in --out, or do not.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, write nothing, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")]
