"""`interp sae`: one room per subcommand, each with `register(group)`; nothing heavy is imported until one runs."""

from __future__ import annotations

import typer

from sae.commands import convert, judging, paging, train

PARTS = (train, judging, paging, convert)
"""The subcommands, in the order of the help."""


def register(app: typer.Typer) -> None:
    """Add `sae` to the command line."""
    group = typer.Typer(
        help="Train sparse autoencoders, judge and show them, carry them between formats.",
        no_args_is_help=True,
    )
    group.callback()(lambda: None)
    for part in PARTS:
        part.register(group)
    app.add_typer(group, name="sae")
