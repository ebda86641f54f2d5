"""What commands say on a terminal: texts of models and files cannot clear it, colour it, or turn its lines around."""

from __future__ import annotations

import logging
from typing import Any

import typer

from interp.escaping import visible

__all__ = ["PlainFormatter", "say"]


def say(text: Any = "", *, err: bool = False) -> None:
    """Write lines to standard output (or error); everything in them but line ends is made visible.

    JSON from ``json.dumps`` passes unchanged: it has escaped what could act.
    """
    typer.echo(visible(text, keep="\n\x7f"), err=err)


class PlainFormatter(logging.Formatter):
    """Log lines without orders to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return visible(super().format(record), keep="\n\t")
