"""What all views do: show themselves in a notebook, save themselves as a page; and how they take tokens and arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.errors import InputError
from interp.pages import document
from interp.tokens import Tokens

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["View", "array_of", "prompts_of"]


class View(ABC):
    """A page of its own, in a notebook's frame or as a file."""

    __slots__ = ()

    title: str
    """What stands above the view; ``""`` for nothing."""

    @property
    @abstractmethod
    def height(self) -> int:
        """Pixels of the frame in a notebook."""

    @abstractmethod
    def page(self) -> str:
        """The whole HTML page."""

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Every value of the view, exactly, a row each."""

    def save(self, path: str | Path) -> Path:
        """Write the view as one HTML file that asks nothing of the network; whole or not at all."""
        return document.write(path, self.page())

    def _repr_html_(self) -> str:
        return document.frame(self.page(), height=self.height, title=self.title or type(self).__name__)


def array_of(values: Any, what: str) -> np.ndarray:
    """Numbers as a float32 array (on the CPU); InputError for anything else."""
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float32)
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what} must be an array of numbers; got {type(values).__name__}: {error}"
        ) from error


def prompts_of(tokens: Any) -> tuple[list[list[str]], list[np.ndarray] | None]:
    """The texts of each prompt's tokens, and where a padded batch holds them (None where nothing is padded).

    ``tokens``: :class:`interp.Tokens`, a list of texts (one prompt), or a list of such lists.
    """
    if isinstance(tokens, Tokens):
        kept = [np.flatnonzero(mask) for mask in tokens.mask.cpu().numpy()]
        return [[row[i] for i in where] for row, where in zip(tokens.strings, kept, strict=True)], kept
    if isinstance(tokens, str) or not isinstance(tokens, Sequence) or not len(tokens):
        raise InputError(
            f"tokens are Tokens (model.tokens), a list of texts, or one such list per prompt; got {str(tokens)[:60]!r}"
        )
    rows = [tokens] if isinstance(tokens[0], str) else tokens
    for i, row in enumerate(rows):
        if isinstance(row, str) or not len(row) or not all(isinstance(token, str) for token in row):
            raise InputError(f"prompt {i} is no list of texts, one a token: {str(row)[:60]!r}")
    return [list(row) for row in rows], None
