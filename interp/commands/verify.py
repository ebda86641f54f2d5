"""`interp verify`: is what a store or a report says still so?"""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.commands.invocation import enroll
from interp.commands.options import AsJson
from interp.commands.saying import say

GROUP = "interp.verifiers"


def register(app: typer.Typer) -> None:
    """Add `verify` to the command line."""
    enroll(app, "verify", verify)


def verify(
    path: Annotated[
        Path, typer.Argument(help="A store's folder (or the folder that holds just one), or a report's JSON.")
    ],
    model: Annotated[
        str | None, typer.Option(help="The model of a report, where its name does not load it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an activation store against its hashes, or do a report again.

    A store: every shard is hashed. A circuit report: its parts, versions, weights and prompts are hashed, and its
    scores, exact effects and faithfulness are done again in samples. Exit code 1 if anything differs; each is named.

    Examples:

        interp verify acts

        interp verify circuit-report/report.json
    """
    if path.suffix == ".json":
        ok, said = _verifier(path).verify(path, model=model)
    else:
        from interp import open_store

        store = open_store(path).verify()
        ok, said = True, f"VERIFIED {store.n_rows} rows in {len(store.shards)} shards"
    if as_json:
        say(json.dumps({"path": str(path), "verified": ok, "said": said}))
    else:
        say(said, err=not ok)
    if not ok:
        raise typer.Exit(1)


def _verifier(path: Path) -> Any:
    from interp.errors import StoreError
    from interp.runs.files import read_json

    record = read_json(path)
    schema = str(record.get("schema", "")) if isinstance(record, dict) else ""
    found = [entry.load() for entry in entry_points(group=GROUP)]
    for one in found:
        if schema.split("/")[0] == one.schema:
            return one
    raise StoreError(
        f"{path} is nothing that can be verified: its schema is {schema or 'not named'!r} "
        f"(there are: {', '.join(one.schema for one in found)})"
    )
