"""The discrete-SAE method: a part matters where its outputs take codes that only clean prompts give it.

``circuits.sae_circuit``. An autoencoder is trained on what heads write; the code of a head on a prompt is its largest
latent. Nothing is intervened on, so what comes out is a description, to be judged by ``edge_effects``. Read next:
``autoencoder.py`` (the published autoencoder), ``nulls.py`` (what chance gives).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.graph import Graph
from circuits.layout import GQA, Layout
from circuits.nulls import Null, against_chance, paired_swaps
from circuits.passes import record
from circuits.questions import asked
from circuits.stream import Stream
from interp.dictionaries import Dictionary
from interp.errors import InputError, nearest

__all__ = ["MODES", "sae_circuit"]

MODES = {
    "published": "codes seen in clean and not in corrupted prompts",
    "votes": "places among the first pairs of heads by code pairs seen in clean and not in corrupted prompts",
    "honest": "standard score of {statistic} over {n} random exchanges of clean and corrupted within pairs, shifted to "
    "begin at 0; of an edge the least of its own and its ends'",
}
Trainer = Callable[[Tensor], Dictionary]


def sae_circuit(
    model: Any,
    task: Any,
    coder: Dictionary | Trainer,
    *,
    mode: str = "honest",
    position: str = "mean",
    statistic: str = "unique",
    ensemble: Graph | None = None,
    n_train: int | None = None,
    n_draws: int = 200,
    gqa: GQA = "ungrouped",
    seed: int = 0,
    batch_size: int | None = None,
) -> Graph:
    """Score heads and edges by discrete codes of what they write.

    Parameters
    ----------
    coder
        A trained dictionary, or a callable that trains one on rows [sample d_model], such as
        :func:`circuits.discrete_coder` or ``lambda rows: sae.train(rows, config).coder``.
    mode
        ``"published"``: heads only, one dictionary for all, trained on ``n_train`` prompts (10), the score of a head
        the number of its codes that clean prompts have and corrupted ones have not. ``"votes"``: what the published
        code calls the edge score; it counts heads in the first pairs, and knows no direction. ``"honest"``: MLPs and
        the input too, every part's rows centred and scaled by itself, the dictionary trained on one half of the pairs
        and codes counted on the other, directed edges, and everything beside what chance gives.
    position
        ``"mean"`` over each prompt's tokens (as published) or the ``"last"``.
    statistic
        Of the honest mode: ``"unique"`` codes, or the ``"information"`` (nats) that codes have about which prompt of
        the pair it is.
    ensemble
        A graph of the same network (EAP-IG): the score is then the mean of the two ranks.
    n_draws
        Of the honest mode's null.

    Returns
    -------
    Graph
        Scores are minus what is said in ``convention``, so that both selections put high scores first. An edge of the
        two published modes is worth its weaker end; ports are not told apart, as codes belong to outputs. The
        provenance lists ``nodes`` with score, and in the honest mode with ``chance`` and ``p``.

    Raises
    ------
    InputError
        An unknown mode, position or statistic, too few pairs, a graph of another network, a model without heads.

    Notes
    -----
    Cost: one forward pass a prompt, and the training.

    References
    ----------
    O'Neill and Bui 2024 (arXiv 2405.12522), and its code as of April 2024. Published areas under the ROC curve on
    GPT-2 small and a 4-layer model, over heads: 0.87 (IOI), 0.86 (greater-than), 0.87 (docstring).
    """
    _known(mode, MODES, "mode")
    _known(position, ("mean", "last"), "position")
    _known(statistic, ("unique", "information"), "statistic")
    stream = Stream(model, gqa=gqa)
    layout = stream.layout
    if ensemble is not None and ensemble.layout.to_dict() != layout.to_dict():
        raise InputError(
            f"the ensemble's graph has {ensemble.n_edges} edges of another network or another gqa="
        )
    rows = _written(stream, task, position, batch_size)
    n = len(rows) // 2
    if n < 4:
        raise InputError(f"{n} pairs are too few for codes to be compared; at least 4 are needed")
    if not any(".h" in name for name in layout.sources):
        raise InputError(f"{model.name} has no heads to code")
    generator = torch.Generator().manual_seed(seed)
    if mode == "honest":
        train = torch.randperm(n, generator=generator) < (n // 2 if _untrained(coder) else 0)
        codes = _own_codes(rows, coder, train)
        null = against_chance(
            codes, paired_swaps(len(codes) // 2, n_draws, seed), layout=layout, statistic=statistic
        )
        worth, nodes = null.edges, _table(layout, null)
    else:
        chosen = torch.randperm(2 * n, generator=generator)[: n_train or 10]
        codes, worth, nodes = _published(layout, rows, coder, chosen, mode)
    if ensemble is not None:
        worth = (_rank(worth) + _rank(np.abs(ensemble.require_scores()))) / 2
    said = MODES[mode].format(statistic="unique codes" if statistic == "unique" else "information", n=n_draws)
    return Graph(
        layout=layout,
        scores=-worth,
        n=n,
        method=f"discrete SAE ({mode})" + (f" with {ensemble.method}" if ensemble is not None else ""),
        convention=f"minus {said}; outputs at the {position} position"
        + ("; mean of ranks" if ensemble is not None else ""),
        provenance={
            "model": model.name,
            "backend": model.backend,
            "mode": mode,
            "position": position,
            "statistic": statistic,
            "n_codes": int(len(np.unique(codes))),
            "n_draws": n_draws,
            "seed": seed,
            "nodes": nodes,
        },
    )


def _known(value: str, among: Any, name: str) -> None:
    if value not in among:
        raise InputError(f"{name}={value!r}; it is one of {list(among)}{nearest(value, among)}")


def _untrained(coder: Any) -> bool:
    """Whether it has to be trained first."""
    return isinstance(coder, type) or not hasattr(coder, "encode")


@torch.no_grad()
def _written(stream: Stream, task: Any, position: str, batch_size: int | None) -> Tensor:
    """What every source writes [prompt source d_model] at one place; clean prompts first, then the corrupted."""
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for question in asked(task, batch_size=batch_size):
        for side, tokens in zip(sides, (question.clean, question.corrupted), strict=True):
            terms = record(stream, tokens).writes.terms(stream)
            mask = tokens.mask.to(terms.device)
            if position == "last":
                side.append(
                    terms[torch.arange(len(terms), device=terms.device), :, tokens.last.to(terms.device)]
                )
            else:
                weight = mask.to(terms) / mask.sum(1, keepdim=True)
                side.append(torch.einsum("bspd,bp->bsd", terms, weight))
    return torch.cat([*sides[0], *sides[1]])


@torch.no_grad()
def _codes(coder: Any, rows: Tensor, train: Tensor) -> np.ndarray:
    """[prompt part] the largest latent of every row."""
    if _untrained(coder):
        with torch.enable_grad():
            coder = coder(train.flatten(0, 1))
    return coder.encode(rows.flatten(0, 1)).argmax(-1).view(rows.shape[:2]).cpu().numpy()


def _own_codes(rows: Tensor, coder: Any, train: Tensor) -> np.ndarray:
    """Codes of the pairs that were not trained on, every part centred and scaled by those that were."""
    both = torch.cat([train, train])
    some = rows[both] if train.any() else rows
    centre = some.double().mean(0)
    scale = (some - centre).double().square().mean((0, 2)).sqrt()[:, None]
    # a part that never varies has nothing to tell: all its rows are 0
    moves = scale > 1e-6 * some.double().square().mean((0, 2)).sqrt().max()
    scaled = torch.where(moves, (rows - centre) / scale.where(moves, 1.0), 0.0).to(rows.dtype)
    return _codes(coder, scaled[~both], scaled[both])


def _published(
    layout: Layout, rows: Tensor, coder: Any, train: Tensor, mode: str
) -> tuple[np.ndarray, np.ndarray, dict[str, dict[str, float]]]:
    """Codes of heads [prompt head], what edges are worth, and the table of heads, by the published scores."""
    heads = [i for i, name in enumerate(layout.sources) if ".h" in name]
    codes = _codes(coder, rows[:, heads], rows[train][:, heads])
    score = np.zeros(len(layout.sources))
    score[heads] = _unique(codes) if mode == "published" else _votes(codes, layout)
    return (
        codes,
        _weaker_end(layout, score),
        {layout.sources[i]: {"score": float(score[i])} for i in heads},
    )


def _unique(codes: np.ndarray) -> np.ndarray:
    """[part] codes that the first half of the rows has and the second has not."""
    half = len(codes) // 2
    return np.array([len(set(part[:half]) - set(part[half:])) for part in codes.T.tolist()], dtype=float)


def _votes(codes: np.ndarray, layout: Layout) -> np.ndarray:
    """[head] places among the first n^2 / 2 ends of the head pairs by unique code pairs; n is the heads of a layer."""
    half, n = len(codes) // 2, codes.shape[1]
    joint = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            if a != b:
                pairs = list(zip(codes[:, a].tolist(), codes[:, b].tolist(), strict=True))
                joint[a, b] = len(set(pairs[:half]) - set(pairs[half:]))
    ends = np.stack(np.unravel_index(np.argsort(joint.ravel())[::-1], joint.shape), 1).ravel()
    most = max(block.n_heads for block in layout.blocks)
    return np.bincount(ends[: most**2 // 2], minlength=n).astype(float)


def _weaker_end(layout: Layout, score: np.ndarray) -> np.ndarray:
    """[edge] the lower score of its two ends; the input and the logits are no ends that could be weak."""
    ends = np.where(np.arange(len(score)) == 0, np.inf, score)
    into = np.array([max((ends[s] for s in feeds), default=np.inf) for feeds in layout.feeds])
    worth = np.minimum(ends[layout.source], into[layout.destination])
    return np.where(np.isfinite(worth), worth, 0.0)


def _rank(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1, ties at their mean."""
    from scipy.stats import rankdata

    return (rankdata(values) - 1) / max(1, len(values) - 1)


def _table(layout: Layout, null: Null) -> dict[str, dict[str, float]]:
    return {
        name: {"score": float(null.score[i]), "observed": float(null.observed[i]),
               "chance": float(null.chance[i]), "p": float(null.p[i])}
        for i, name in enumerate(layout.sources)
    }  # fmt: skip
