"""Geometry: directions of tokens. How bent is a path through the layers' space, how narrow the cone of directions,
how contextual a word, how alike the tokens of one text.

Cosines of all pairs are exact and need no sampling: over rows z of length 1, (|sum z|^2 - n) / (n (n - 1)).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from interp.activations import Activations
from interp.errors import InputError
from interp.metrics.declared import NO_PARTS, NOT_ASKED, known_compat, outcome
from interp.metrics.rows import Data, Groups, Rows, checked, clustered, jackknife, jackknife_blocks
from interp.moments.accumulator import SiteMoments
from interp.results import Result

__all__ = [
    "curvature",
    "intra_sentence_similarity",
    "max_explainable_variance",
    "mean_cosine",
    "self_similarity",
    "token_homogeneity",
]


def _unit(rows: Tensor) -> Tensor:
    length = rows.norm(dim=-1, keepdim=True)
    if bool((length == 0).any()):
        where = int((length.flatten() == 0).nonzero()[0])
        raise InputError(f"row {where} has length 0: it has no direction")
    return rows / length


def _pair_cosine(total: Tensor, n: Tensor | int) -> Tensor:
    return (total.square().sum(-1) - n) / (n * (n - 1))


def mean_cosine(x: Data, *, drop_top: int = 0, groups: Groups = None, n_blocks: int = 16) -> Result:
    """Mean cosine of all pairs of different rows: the anisotropy of a representation.

    Parameters
    ----------
    x
        [sample, d], or a site of a Moments with the twin.
    drop_top
        Leave out the coordinates that contribute most to the value first (rogue dimensions, which can make all of
        it); rows only. ``.provenance["dropped"]`` names them.

    Returns
    -------
    Result
        In [-1 / (n - 1), 1]; ``.chance`` 0, that of isotropic rows.

    References
    ----------
    Ethayarajh 2019; Godey et al. 2024; Timkey & van Schijndel 2021 (rogue dimensions).
    """
    dropped: list[int] = []
    if isinstance(x, SiteMoments):
        if not x.moments.config.twin:
            raise InputError(
                f"the moments of {x.site} lack the twin of rows at length 1: accumulate with twin=True"
            )
        if drop_top:
            raise InputError("dropping coordinates needs the rows themselves: their lengths change")
        sums = [x.moments.sums, *x.moments.left_out()]
        values = torch.stack([_pair_cosine(s["twin_first", x.site], s["twin_n", x.site]) for s in sums])
        n, d = x.n, x.d
    else:
        rows = checked(x, least=2)
        n, d = rows.shape
        if not 0 <= drop_top < d:
            raise InputError(f"drop_top = {drop_top} of {d} coordinates")
        if drop_top:
            dropped = _unit(rows).sum(0).square().topk(drop_top).indices.tolist()
            kept = torch.ones(d, dtype=torch.bool)
            kept[dropped] = False
            rows = rows[:, kept]
        z = _unit(rows)
        total = z.sum(0)
        values = torch.stack([
            _pair_cosine(total, n),
            *(_pair_cosine(total - z[b].sum(0), n - len(b)) for b in jackknife_blocks(n, n_blocks, groups)),
        ])  # fmt: skip
    return outcome(
        "mean cosine", float(values[0]), n=n, d=d, chance=0.0,
        stderr=float(jackknife(values[1:])) if len(values) > 2 else None,
        no_stderr=NO_PARTS if isinstance(x, SiteMoments) else NOT_ASKED,
        convention="all pairs of different rows, not centred" + (f", {drop_top} coordinates dropped" * bool(drop_top)),
        provenance={"dropped": dropped},
    )  # fmt: skip


def _paths(acts: Tensor, mask: Tensor | None) -> list[Tensor]:
    """The real tokens of each sequence, in order, float64."""
    if acts.ndim == 2:
        acts = acts[None]
        mask = None if mask is None else mask[None] if mask.ndim == 1 else mask
    if acts.ndim != 3:
        raise InputError(f"acts must be [batch, pos, d]; got {list(acts.shape)}")
    if mask is None:
        return list(acts.detach().double())
    if mask.shape != acts.shape[:2]:
        raise InputError(f"mask is {list(mask.shape)} for acts {list(acts.shape)}: one entry a token")
    return [x[m.to(x.device)].detach().double() for x, m in zip(acts, mask, strict=True)]


def curvature(
    acts: Float[Tensor, "batch pos d"] | Float[Tensor, "pos d"],
    mask: Bool[Tensor, "batch pos"] | None = None,
    *,
    compat: str | None = None,
) -> Result:
    """Mean angle, in degrees, between successive steps h_{t+1} - h_t of a sequence.

    0 for a straight line, 360 / m around a circle in m steps, 90 for a random walk, 120 for independent points (the
    ``.chance``). Averaged over the steps of a sequence, then over sequences (``.stderr``); sequences under three
    tokens and steps of length 0 are left out.

    Parameters
    ----------
    compat
        ``"skean"``: the angle between successive *states*, as the published code has it.

    References
    ----------
    Henaff et al. 2019; Hosseini & Fedorenko 2023; Skean et al. 2024.
    """
    known_compat(compat, "skean")
    values = []
    for path in _paths(acts, mask):
        steps = path if compat == "skean" else path.diff(dim=0)
        steps = steps[steps.norm(dim=1) > 0]
        if len(steps) >= 2:
            u = _unit(steps)
            # atan2 of half chords: arccos loses all digits near 0 and 180 degrees
            angle = 2 * torch.atan2((u[1:] - u[:-1]).norm(dim=1), (u[1:] + u[:-1]).norm(dim=1))
            values.append(angle.rad2deg().mean())
    if not values:
        return outcome("curvature", float("nan"), n=0, d=acts.shape[-1], convention="degrees",
                       reason="no sequence has two steps of positive length")  # fmt: skip
    each = torch.stack(values)
    return outcome(
        "curvature", float(each.mean()), n=len(each), d=acts.shape[-1], stderr=clustered(each),
        chance=90.0 if compat else 120.0, no_stderr="one sequence: the error is over sequences",
        convention="degrees between successive " + ("states (compat skean)" if compat else "differences of tokens")
        + "; mean over sequences",
    )  # fmt: skip


def _words(x: Rows, words: Any, least: int) -> tuple[Tensor, list[Tensor]]:
    rows = checked(x, least=2)
    labels = torch.as_tensor(words).flatten()
    if len(labels) != len(rows):
        raise InputError(f"words has {len(labels)} entries for {len(rows)} rows")
    groups = [torch.nonzero(labels == w).flatten() for w in labels.unique() if w >= 0]
    kept = [g for g in groups if len(g) >= least]
    if not kept:
        raise InputError(f"no word occurs {least} times")
    return rows, kept


def self_similarity(x: Rows, words: Int[Tensor, "sample"] | np.ndarray) -> Result:
    """Mean cosine between occurrences of the same word, averaged over words that occur twice or more.

    Parameters
    ----------
    x, words
        [sample, d] and the word (token id) of each row; negative ids are left out.

    Returns
    -------
    Result
        ``.chance``: the anisotropy baseline, the mean cosine of all pairs of rows; ``.provenance["adjusted"]`` is the
        value minus it. A static embedding reads 1.

    References
    ----------
    Ethayarajh 2019, definition 1.
    """
    rows, groups = _words(x, words, 2)
    z = _unit(rows)
    each = torch.stack([_pair_cosine(z[g].sum(0), len(g)) for g in groups])
    base = float(_pair_cosine(z.sum(0), len(z)))
    value = float(each.mean())
    return outcome(
        "self-similarity", value, n=len(each), d=rows.shape[1], stderr=clustered(each), chance=base,
        no_stderr="one word: the error is over words",
        convention="mean cosine within a word, mean over words; chance: mean cosine of all pairs",
        provenance={"adjusted": value - base, "rows": len(rows)},
    )  # fmt: skip


def max_explainable_variance(x: Rows, words: Int[Tensor, "sample"] | np.ndarray, *, seed: int = 0) -> Result:
    """MEV: the share of variance of a word's occurrences along their first principal direction, mean over words.

    Words that occur three times or more. Not centred, as a static embedding (which reads 1) would not be.
    ``.chance``: the same over random groups of rows of the same sizes; ``.provenance["adjusted"]`` is the difference.

    References
    ----------
    Ethayarajh 2019, definition 3.
    """
    rows, groups = _words(x, words, 3)

    def share(index: Tensor) -> Tensor:
        squares = torch.linalg.svdvals(rows[index]).square()
        return squares[0] / squares.sum()

    generator = torch.Generator().manual_seed(seed)
    each = torch.stack([share(g) for g in groups])
    random = torch.stack([share(torch.randperm(len(rows), generator=generator)[: len(g)]) for g in groups])
    value, base = float(each.mean()), float(random.mean())
    return outcome(
        "maximum explainable variance", value, n=len(each), d=rows.shape[1], stderr=clustered(each), chance=base,
        no_stderr="one word: the error is over words",
        convention="s_1^2 / sum s^2 of a word's occurrences, not centred; chance: random rows in groups of like size",
        provenance={"adjusted": value - base, "seed": seed},
    )  # fmt: skip


def intra_sentence_similarity(
    acts: Float[Tensor, "batch pos d"], mask: Bool[Tensor, "batch pos"] | None = None
) -> Result:
    """Mean cosine of each token with the mean vector of its sentence, averaged over sentences.

    ``.chance``: the mean cosine of all pairs of tokens; ``.provenance["adjusted"]`` is the value minus it.

    References
    ----------
    Ethayarajh 2019, definition 2.
    """
    paths = [p for p in _paths(acts, mask) if len(p) > 1]
    if not paths:
        raise InputError("no sentence has two real tokens")
    each = torch.stack([(_unit(p) @ _unit(p.mean(0)[None])[0]).mean() for p in paths])
    z = _unit(torch.cat(paths))
    value, base = float(each.mean()), float(_pair_cosine(z.sum(0), len(z)))
    return outcome(
        "intra-sentence similarity", value, n=len(each), d=acts.shape[-1], stderr=clustered(each), chance=base,
        no_stderr="one sentence: the error is over sentences",
        convention="cosine with the sentence mean; chance: mean cosine of all pairs of tokens",
        provenance={"adjusted": value - base},
    )  # fmt: skip


def token_homogeneity(
    acts: Activations | Mapping[Any, Tensor], mask: Bool[Tensor, "batch pos"] | None = None
) -> Result:
    """Mean cosine of all pairs of tokens of one sequence, averaged over sequences, site by site: oversmoothing.

    ``.chance``: the mean cosine of tokens of different sequences at the same site. Sequences of one token are left out.

    References
    ----------
    Wang et al. 2022; Ali et al. 2023 (token homogenisation over depth).
    """
    mask = acts.mask if mask is None and isinstance(acts, Activations) else mask
    values, errors, chance, n, d = [], [], [], 0, 0
    for tensor in acts.values():
        sums = [_unit(p).sum(0) for p in _paths(tensor, mask) if len(p) > 1]
        sizes = torch.tensor([len(p) for p in _paths(tensor, mask) if len(p) > 1], dtype=torch.float64)
        if not sums:
            raise InputError("no sequence has two real tokens")
        totals: Float64[Tensor, "batch d"] = torch.stack(sums)
        each = _pair_cosine(totals, sizes)
        n, d = len(each), max(d, tensor.shape[-1])
        values.append(float(each.mean()))
        errors.append(np.nan if n < 2 else float(clustered(each) or 0.0))
        across = totals.sum(0).square().sum() - totals.square().sum()
        pairs = sizes.sum().square() - sizes.square().sum()
        chance.append(float(across / pairs) if n > 1 else np.nan)
    return outcome(
        "token homogeneity", np.array(values), n=n, d=d, stderr=np.array(errors), chance=np.array(chance),
        axes=("site",), ticks=(tuple(str(site) for site in acts),),
        convention="mean cosine of pairs of tokens within a sequence; chance: between sequences",
    )  # fmt: skip
