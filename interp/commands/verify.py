"""`interp verify`: are the bytes of an activation store those that were written?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `verify` to the command line."""
    app.command("verify")(verify)


def verify(
    path: Annotated[Path, typer.Argument(help="A store's folder, or the folder that holds just one.")],
) -> None:
    """Hash every shard of an activation store and compare with what was written.

    Exit code 1 if a shard is missing, torn or has a changed bit; each is named.

    Example: interp verify acts
    """
    from interp import open_store

    store = open_store(path).verify()
    typer.echo(f"VERIFIED {store.n_rows} rows in {len(store.shards)} shards")
