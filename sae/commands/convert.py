"""`interp sae convert`: a coder from one format into another, and proof that the new file gives the same codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.commands.invocation import enroll
from interp.commands.options import AsJson, Seed, choices
from interp.commands.saying import say

FORMATS = (
    "native", "saelens", "saelens_legacy", "sparsify", "dictionary_learning", "gemma_scope", "gemma_scope_2",
)  # fmt: skip
"""Written out, because asking :mod:`sae.formats` would import torch for a line of help; a test holds them equal."""


def register(group: typer.Typer) -> None:
    """Add `convert` to `interp sae`."""
    enroll(group, "convert", convert)


def convert(
    source: Annotated[
        Path, typer.Argument(help="A coder's folder or file, in any format that sae.load reads.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write, new or empty.")],
    format: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(FORMATS)}.", autocompletion=choices(*FORMATS)),
    ] = "native",
    tolerance: Annotated[float, typer.Option(min=0, help="Largest relative difference of a code.")] = 1e-5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write a coder in another format, read it back, and compare codes and reconstructions on random rows.

    The model and the site go with it where a run's model card names them and the format has a place for them. Exit code
    1 if the format cannot express the coder (the reason is named) or the codes differ.

    Example: interp sae convert runs/mini --out exported --format saelens
    """
    import sae
    from interp.errors import CheckError, InputError
    from sae.formats.agreement import agreement

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not an empty folder; choose another")
    coder = sae.load(source)
    sae.save(coder, out, format=format, provenance=known(source))
    found = agreement(coder, sae.load(out), seed=seed, tolerance=tolerance)
    record: dict[str, Any] = {"path": str(out), "format": format, **found}
    if max(found["codes"], found["rows"]) > tolerance or found["undecided"] > 0.1 * found["n_rows"]:
        raise CheckError(
            f"{out} was written, but does not do the same: codes differ by {found['codes']:.2g} and "
            f"reconstructions by {found['rows']:.2g} of their size on {found['n_rows']} rows ({found['undecided']} "
            "undecided)"
        )
    say(json.dumps(record, indent=2) if as_json else str(out))


def known(source: Path) -> dict[str, Any]:
    """Where the coder of a run's folder came from: its model, sites and configuration; nothing elsewhere."""
    from interp.runs.files import read_json

    card = (source.parent if source.name == "coder" else source) / "CARD.json"
    found = read_json(card) if card.is_file() else None
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(data, dict):
        return {"converted_from": source.name}
    model = data.get("model")
    told: dict[str, Any] = {"converted_from": source.name, "config": found.get("config"), "data": data}
    if isinstance(model, dict):
        told["model"] = model.get("name")
    for name, places in (("site", data.get("sites")), ("target", data.get("targets"))):
        if isinstance(places, list) and len(places) == 1:
            told[name] = places[0]
    return told
