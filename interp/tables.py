"""Tidy tables: arrays with named axes as one row per cell, in long form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.escaping import encodable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["tidy"]


def tidy(axes: Mapping[str, Sequence[Any]], **columns: Any) -> pd.DataFrame:
    """A row per cell: the labels along each axis, then the arrays, which all have one entry per combination of labels.

    Raises
    ------
    InputError
        An array has another shape than the axes.
    """
    import pandas as pd

    shape = tuple(len(labels) for labels in axes.values())
    made: dict[str, Any] = {}
    for axis, (name, labels) in enumerate(axes.items()):
        words = [encodable(label) if isinstance(label, str) else label for label in labels]
        made[name] = [words[i] for i in np.indices(shape)[axis].ravel()]
    for name, values in columns.items():
        held = np.asarray(values)
        if held.shape != shape:
            raise InputError(
                f"{name!r} has shape {list(held.shape)}; the axes {list(axes)} have {list(shape)}"
            )
        made[name] = held.ravel()
    return pd.DataFrame(made)
