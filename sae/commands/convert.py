"""`interp sae convert`: a coder from one format into another, and proof that the new file gives the same codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def register(group: typer.Typer) -> None:
    """Add `convert` to `interp sae`."""
    group.command("convert")(convert)


def convert(
    source: Annotated[
        Path, typer.Argument(help="A coder's folder or file, in any format that sae.load reads.")
    ],
    destination: Annotated[Path, typer.Argument(help="The folder to write.")],
    format: Annotated[
        str, typer.Option(help="native, saelens, sparsify, dictionary_learning, ...")
    ] = "native",
    tolerance: Annotated[float, typer.Option(min=0, help="Largest relative difference of a code.")] = 1e-5,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows that the check draws.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object to standard output.")
    ] = False,
) -> None:
    """Write a coder in another format, read it back, and compare codes and reconstructions on random rows.

    Exit code 1 if the format cannot express the coder (the reason is named) or the codes differ.

    Example: interp sae convert runs/x out/ --format saelens
    """
    import sae
    from interp.errors import CheckError, InputError
    from sae.formats.agreement import agreement

    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InputError(f"{destination} is not an empty folder; choose another")
    coder = sae.load(source)
    sae.save(coder, destination, format=format)
    found = agreement(coder, sae.load(destination), seed=seed)
    record: dict[str, Any] = {"path": str(destination), "format": format, **found}
    if max(found["codes"], found["rows"]) > tolerance:
        raise CheckError(
            f"{destination} was written, but does not do the same: codes differ by {found['codes']:.2g} and "
            f"reconstructions by {found['rows']:.2g} of their size on {found['n_rows']} rows"
        )
    typer.echo(json.dumps(record, indent=2) if as_json else str(destination))
