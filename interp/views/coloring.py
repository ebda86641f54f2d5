"""Tokens tinted by a number each: losses, activations, probe scores, lens ranks, several of them to choose from.

``colored_tokens(tokens, {"loss": losses, "latent 7": codes})``. Blue is above 0, orange below, on a scale that is
centred on 0 and said in the legend. Read next: ``coloring.js``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.escaping import encodable, visible
from interp.pages import document
from interp.pages.packing import packed
from interp.views.view import View, array_of, prompts_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TokenView", "colored_tokens"]

LISTED = 200
"""Tokens in the table that is there without JavaScript."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TokenView(View):
    """Tokens and one or more numbers for each."""

    prompts: tuple[tuple[str, ...], ...]
    """The texts of each prompt's tokens."""
    names: tuple[str, ...]
    """What the rows of values are."""
    values: tuple[np.ndarray, ...]
    """By prompt: [name, pos] float32; nan where there is no value."""
    limit: float | None = None
    """What counts as full colour, for all rows; None for each row's largest size."""
    title: str = ""

    @property
    def height(self) -> int:
        letters = sum(len(token) + 1 for row in self.prompts for token in row)
        return min(900, 230 + 30 * (len(self.prompts) + letters // 90))

    def __repr__(self) -> str:
        n = sum(map(len, self.prompts))
        names = ", ".join(visible(name)[:24] for name in self.names[:4]) + (
            ", ..." if len(self.names) > 4 else ""
        )
        return f"TokenView({n} tokens in {len(self.prompts)} prompts; {names})"

    def to_frame(self) -> pd.DataFrame:
        """A row per prompt, position and name: the token and its value."""
        import pandas as pd

        parts = []
        for i, (tokens, held) in enumerate(zip(self.prompts, self.values, strict=True)):
            name, pos = np.indices(held.shape).reshape(2, -1)
            words = np.array([encodable(token) for token in tokens], dtype=object)
            names = np.array([encodable(one) for one in self.names], dtype=object)
            parts.append(pd.DataFrame({
                "prompt": i, "pos": pos, "token": words[pos], "name": names[name], "value": held.ravel(),
            }))  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def page(self) -> str:
        columns = {f"p{i}": held for i, held in enumerate(self.values)}
        extra = {
            "prompts": [[visible(token) for token in row] for row in self.prompts],
            "names": [visible(name) for name in self.names],
            "limit": self.limit,
            "spaced": any(token[:1].isspace() for row in self.prompts for token in row),
        }
        return document.render(
            "interp.views", "view.html.j2", styles=("views.css",), scripts=("coloring.js",),
            title=self.title, kind="coloring", data=packed(columns, extra), tables=_listed(self),
        )  # fmt: skip


def colored_tokens(
    tokens: Any, values: Any, *, names: Any = None, limit: float | None = None, title: str = ""
) -> TokenView:
    """Look at a number per token, in the text.

    Parameters
    ----------
    tokens
        :class:`interp.Tokens` (padding is left out), a list of texts, or one such list per prompt.
    values
        [batch, pos], or [pos] for one prompt; or [batch, pos, name] with ``names``; or a mapping from a name to any of
        the first two. nan: no value, and no colour.
    names
        What the last axis of ``values`` counts.
    limit
        The size that gets the full colour; without it, each row's largest size.
    title
        Stands above the view.

    Raises
    ------
    InputError
        No value, shapes that do not fit the tokens, or a limit that is not positive.

    Examples
    --------
    >>> tokens = model.tokens("The cat sat on the mat.")
    >>> logits = model.logits(tokens)
    >>> interp.views.colored_tokens(tokens, {"largest logit": logits.max(-1).values})
    """
    words, kept = prompts_of(tokens)
    rows = _rows(values, names)
    if limit is not None and not limit > 0:
        raise InputError(f"limit is the size that gets the full colour, so it is above 0; got {limit}")
    held = []
    for i, prompt in enumerate(words):
        where = np.arange(len(prompt)) if kept is None else kept[i]
        held.append(
            np.stack([_part(name, row, i, where, len(words), kept is None) for name, row in rows.items()])
        )
    return TokenView(
        prompts=tuple(map(tuple, words)), names=tuple(rows), values=tuple(held),
        limit=None if limit is None else float(limit), title=title,
    )  # fmt: skip


def _rows(values: Any, names: Any) -> dict[str, Any]:
    if isinstance(values, Mapping):
        if names is not None:
            raise InputError("a mapping has its names already: leave names= out")
        found = {str(name): _parts(row, str(name)) for name, row in values.items()}
    elif names is not None:
        whole, names = array_of(values, "values"), [str(name) for name in names]
        if not whole.ndim or whole.shape[-1] != len(names) or len(set(names)) != len(names):
            raise InputError(
                f"{len(names)} different names go with a last axis of that size; got {list(whole.shape)}"
            )
        found = {name: whole[..., i] for i, name in enumerate(names)}
    else:
        found = {"value": _parts(values, "values")}
    if not found:
        raise InputError("there are no values")
    return found


def _parts(row: Any, name: str) -> Any:
    """An array, or a list of arrays where prompts have different lengths."""
    ragged = (
        isinstance(row, list | tuple) and row and np.ndim(row[0]) == 1 and len({len(one) for one in row}) > 1
    )
    return [array_of(one, name) for one in row] if ragged else array_of(row, name)


def _part(name: str, row: Any, i: int, where: np.ndarray, n_prompts: int, whole: bool) -> np.ndarray:
    if isinstance(row, np.ndarray) and row.ndim == 1:
        row = row[None]
    shape = list(row.shape) if isinstance(row, np.ndarray) else [len(row)]
    if len(row) != n_prompts or np.ndim(row[i]) != 1:
        raise InputError(
            f"{name!r} has shape {shape}; expected a number for each token of {n_prompts} prompts"
        )
    one = row[i]
    if (whole and len(one) != len(where)) or (not whole and len(where) and where[-1] >= len(one)):
        raise InputError(f"{name!r} has {len(one)} values for prompt {i}, which has {len(where)} tokens")
    return one[where]


def _listed(view: TokenView) -> list[dict[str, Any]]:
    """What the page says without JavaScript."""
    rows = [
        [str(i), str(pos), token, *(f"{value:.4g}" for value in held[:, pos])]
        for i, (tokens, held) in enumerate(zip(view.prompts, view.values, strict=True))
        for pos, token in enumerate(tokens)
    ]
    return [{"columns": ["prompt", "position", "token", *view.names], "rows": rows[:LISTED]}]
