"""Heads by where they look and what they copy: the field's scores, over all heads at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from circuits.atlas.weights import embedding, head_weights, unembedding
from circuits.stream import Stream
from interp.errors import InputError
from interp.results import Result
from interp.toys.repeats import head_scores, repeated

__all__ = ["HeadAtlas", "head_atlas"]

SCORES = {
    "previous": "attention to the token before",
    "induction": "attention from a repeated token to what followed its earlier occurrence",
    "duplicate": "attention from a repeated token to its earlier occurrence",
    "first": "attention to the first token",
    "answer": "attention from the end of the prompt to the first place of the right answer",
    "wrong": "attention from the end of the prompt to the last place of the wrong answer",
    "copying": "sum of the real parts of the eigenvalues of W_E W_V W_O W_U over the sum of their sizes",
}
"""Each score in words; ``copying`` is in [-1, 1], the others are probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HeadAtlas(Result):
    """``value`` [score, layer, head]; nan where a layer has no such head."""

    def best(self, score: str, k: int = 3) -> list[tuple[str, float]]:
        """The ``k`` heads that score highest, by node name.

        Raises
        ------
        InputError
            There is no such score.
        """
        if score not in self.ticks[0]:
            raise InputError(f"no score {score!r}; there are {', '.join(self.ticks[0])}")
        grid = np.asarray(self.value)[self.ticks[0].index(score)]
        order = np.argsort(-np.nan_to_num(grid, nan=-np.inf), axis=None)[:k]
        where = [np.unravel_index(i, grid.shape) for i in order]
        return [(f"a{layer}.h{head}", float(grid[layer, head])) for layer, head in where]


def head_atlas(
    model: Any,
    *,
    task: Any = None,
    ids: Int64[Tensor, "batch pos"] | None = None,
    n: int = 64,
    period: int = 24,
    seed: int = 0,
) -> HeadAtlas:
    """Previous-token, induction, duplicate, first-token and copying scores of every head; with a task also name movers.

    Parameters
    ----------
    task
        A :class:`interp.tasks.Task` whose answers stand in the prompt (indirect objects): adds ``answer`` and
        ``wrong``. Rows whose prompt lacks them are left out.
    ids
        Repeated sequences (``interp.toys.repeats``); by default ``n`` rows of a random block of ``period`` tokens
        twice.

    Raises
    ------
    ModelError
        The model offers no attention patterns, or its stream is no plain sum.
    InputError
        No prompt of the task holds its answer.

    Notes
    -----
    Cost: one forward pass of ``ids``, one of the task's prompts, and eigenvalues of a [d_head d_head] matrix a head.
    ``copying`` ignores the norms' scales.

    References
    ----------
    Elhage et al. 2021, "A mathematical framework for transformer circuits" (copying, eigenvalues); Olsson et al. 2022,
    "In-context learning and induction heads"; Wang et al. 2023, "Interpretability in the wild" (name movers).
    """
    if ids is None:
        longest = (model.n_ctx or 2 * period + 1) - 1
        generator = torch.Generator().manual_seed(seed)
        ids = repeated(n, min(period, longest // 2), d_vocab=model.d_vocab or 2, generator=generator)
    on_repeats = head_scores(model, ids)
    stream = Stream(model)
    grids = {
        kind: getattr(on_repeats, kind).numpy() for kind in ("previous", "induction", "duplicate", "first")
    }
    counts = {"rows": on_repeats.n}
    if task is not None:
        looked, counts["prompts"] = _looks(model, task, grids["previous"].shape)
        grids |= looked
    grids["copying"] = _copying(stream, grids["previous"].shape)
    for layer, part in enumerate(stream.parts):
        for grid in grids.values():
            grid[layer, part.n_heads :] = np.nan
    shape = grids["copying"].shape
    return HeadAtlas(
        name="head scores",
        value=np.stack(list(grids.values())),
        n=on_repeats.n,
        convention="; ".join(f"{kind}: {SCORES[kind]}" for kind in grids),
        axes=("score", "layer", "head"),
        ticks=(tuple(grids), tuple(map(str, range(shape[0]))), tuple(map(str, range(shape[1])))),
        provenance={"model": model.name, "seed": seed, **counts},
    )


def _looks(model: Any, task: Any, shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], int]:
    """Attention from the last token to the answer's first place and the wrong answer's last."""
    places = []
    for row in range(len(task)):
        line, last = task.clean.ids[row].tolist(), int(task.position[row])
        right = [i for i in range(last + 1) if line[i] in task.answers[row].tolist()]
        wrong = [i for i in range(last + 1) if line[i] in task.wrong[row].tolist()]
        if right and wrong:
            places.append((row, last, right[0], wrong[-1]))
    if not places:
        raise InputError(
            f"no prompt of the task {task.name!r} holds its answer and its wrong answer to look at"
        )
    rows, last, right, wrong = torch.tensor(places).T
    grids = {kind: np.zeros(shape) for kind in ("answer", "wrong")}

    def look(site: Any, pattern: Tensor) -> None:
        pattern = pattern.cpu().double()
        for kind, key in (("answer", right), ("wrong", wrong)):
            paid = pattern[torch.arange(len(rows)), :, last, key].mean(0)
            grids[kind][site.layer, : len(paid)] = paid.numpy()

    model.capture(task.clean.select(rows), "blocks.*.attn.hook_pattern", sink=look)
    return grids, len(places)


def _copying(stream: Stream, shape: tuple[int, ...]) -> np.ndarray:
    """The eigenvalues of W_E W_V W_O W_U are those of its factors in another order, a small matrix."""
    out, around = np.zeros(shape), unembedding(stream) @ embedding(stream)
    for layer, part in enumerate(stream.parts):
        if not part.n_heads:
            continue
        w = head_weights(stream, layer)
        values = torch.linalg.eigvals(w["o"] @ around @ w["v"])
        out[layer, : part.n_heads] = (values.real.sum(-1) / values.abs().sum(-1)).cpu().numpy()
    return out
