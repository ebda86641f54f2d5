"""Entropies: the matrix entropy of rows at length 1, of one set of rows, of prompts, of a dataset; in nats.

rho = Z'Z / n has trace 1; its eigenvalues p are those of the Gram matrix ZZ'/n. Renyi's entropy of order alpha is
log(sum p^alpha) / (1 - alpha), and von Neumann's, -sum p log p, at alpha = 1.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import NO_PARTS, caveat_of, known_compat, outcome
from interp.metrics.rows import Data, Groups, checked, clustered, jackknife, jackknife_blocks
from interp.metrics.spectrum import eigenvalues
from interp.moments.accumulator import SiteMoments
from interp.results import Result

__all__ = ["dataset_entropy", "prompt_entropy", "renyi_entropy", "vne_regulariser", "von_neumann_entropy"]

Normalise = Literal["max", "log_n", "log_d"] | None


def von_neumann_entropy(x: Data, *, groups: Groups = None, n_blocks: int = 8) -> Result:
    """-sum l log l over the eigenvalues of rho = Z'Z / n, Z the rows of ``x`` at length 1, not centred.

    Parameters
    ----------
    x
        [sample, d], or a site of a Moments that keeps the twin. Rows of length 0 are left out.

    Returns
    -------
    Result
        In [0, log min(n, d)] nats, 0 where all rows are parallel; ``.chance`` log min(n, d).

    References
    ----------
    Kim et al. 2023 (VNE), eq. 3.
    """
    return renyi_entropy(x, alpha=1.0, groups=groups, n_blocks=n_blocks)


def renyi_entropy(x: Data, *, alpha: float = 2.0, groups: Groups = None, n_blocks: int = 8) -> Result:
    """Renyi's matrix entropy of order ``alpha`` of the rows at length 1; as :func:`von_neumann_entropy` at 1.

    References: Giraldo, Rao & Principe 2015.
    """
    if alpha <= 0:
        raise InputError(f"alpha = {alpha}; the order is positive")
    spectra, n, d = _spectra(x, groups, n_blocks)
    name = "von Neumann entropy" if alpha == 1 else f"Renyi entropy of order {alpha:g}"
    if not spectra:
        return outcome(name, float("nan"), n=n, d=d, convention="nats", reason="every row has length 0")
    values = torch.stack([_entropy(p, alpha) for p in spectra])
    stderr = float(jackknife(values[1:])) if len(values) > 2 else None
    alone = {"no_stderr": NO_PARTS} if isinstance(x, SiteMoments) else {}
    return outcome(
        name, float(values[0]), n=n, d=d, stderr=stderr, chance=float(np.log(min(n, d))),
        convention="nats; rows at length 1, not centred; chance is the maximum, log min(n, d)",
        provenance={"alpha": alpha, "caveat": caveat_of(n, d, "the sample lacks directions, so the value reads low")},
        **alone,
    )  # fmt: skip


def _spectra(x: Data, groups: Groups, n_blocks: int) -> tuple[list[Tensor], int, int]:
    if isinstance(x, SiteMoments):
        if not x.moments.config.twin:
            raise InputError(
                f"the moments of {x.site} lack the twin of rows at length 1: accumulate with twin=True"
            )
        parts = [x.moments.sums, *x.moments.left_out()]
        made = [s["twin_second", x.site] / s["twin_n", x.site] for s in parts if float(s["twin_n", x.site])]
        return [eigenvalues(rho) for rho in made], x.n, x.d
    rows = checked(x)
    n, d = rows.shape
    length = rows.norm(dim=1)
    z = rows[length > 0] / length[length > 0, None]
    if not len(z):
        return [], n, d
    spectra = [torch.linalg.svdvals(z).square() / len(z)]
    whole = z.T @ z
    blocks = jackknife_blocks(
        len(z), n_blocks, None if groups is None else torch.as_tensor(groups)[length > 0]
    )
    for block in blocks:
        rest = (whole - z[block].T @ z[block]) / (len(z) - len(block))
        spectra.append(eigenvalues(rest))
    return spectra, n, d


def _entropy(p: Tensor, alpha: float) -> Tensor:
    if alpha == 1:
        return torch.special.entr(p).sum()
    return p[p > 0].pow(alpha).sum().log() / (1 - alpha)


def prompt_entropy(
    acts: Float[Tensor, "batch pos d"],
    mask: Bool[Tensor, "batch pos"] | None = None,
    *,
    alpha: float = 1.0,
    normalise: Normalise = None,
    compat: str | None = None,
) -> Result:
    """The matrix entropy of the tokens of one prompt, averaged over prompts.

    Parameters
    ----------
    acts, mask
        [batch, pos, d], and which tokens are real.
    normalise
        None: nats. ``"max"``: over log min(T, d). ``"log_n"``, ``"log_d"``: over log T, log d.
    compat
        ``"skean"``: the published code; rows centred over the prompt before they are scaled, and negative *entries* of
        the Gram (or, for T > d, of the d x d) matrix set to 0, which makes the two sides disagree.

    Returns
    -------
    Result
        ``.stderr`` over prompts; ``.chance`` the maximum. Prompts of a single token are left out (entropy 0 by
        construction).

    References
    ----------
    Skean et al. 2024 (Does Representation Matter?).
    """
    known_compat(compat, "skean")
    if acts.ndim != 3:
        raise InputError(f"acts must be [batch, pos, d]; got {list(acts.shape)}")
    real = torch.ones(acts.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
    values, most, d = [], [], acts.shape[2]
    for rows, keep in zip(acts, real, strict=True):
        n = int(keep.sum())
        if n < 2:
            continue
        value = float(_token_entropy(rows[keep].double(), alpha, compat))
        scale = {None: 1.0, "max": np.log(min(n, d)), "log_n": np.log(n), "log_d": np.log(d)}[normalise]
        values.append(value / scale)
        most.append(np.log(min(n, d)) / scale)
    if not values:
        raise InputError("no prompt has two real tokens")
    shares = torch.tensor(values, dtype=torch.float64)
    unit = "nats" if normalise is None else f"normalised by {normalise}"
    return outcome(
        "prompt entropy", float(shares.mean()), n=len(values), d=d, stderr=clustered(shares),
        chance=float(np.mean(most)), no_stderr="one prompt: the error is over prompts",
        convention=f"order {alpha:g}, {unit}; mean over prompts; chance is the maximum, that of log min(T, d)"
        + (f" (compat {compat})" if compat else ""),
        provenance={"per_prompt": values},
    )  # fmt: skip


def _token_entropy(rows: Tensor, alpha: float, compat: str | None) -> Tensor:
    if compat == "skean":
        rows = rows - rows.mean(0)
    z = torch.nn.functional.normalize(rows, dim=1)
    if compat is None:
        return _entropy(torch.linalg.svdvals(z).square() / len(z), alpha)
    gram = (z.T @ z if len(z) > z.shape[1] else z @ z.T).clamp_min(
        0
    )  # as published: entries, not eigenvalues
    eig = torch.linalg.eigvalsh(gram / gram.trace())
    return _entropy(eig[eig > 0], alpha)


def dataset_entropy(
    acts: Float[Tensor, "batch pos d"],
    mask: Bool[Tensor, "batch pos"] | None = None,
    *,
    alpha: float = 1.0,
) -> Result:
    """The matrix entropy of mean-pooled prompts: :func:`renyi_entropy` of one row a prompt.

    References: Skean et al. 2024.
    """
    real = (
        torch.ones(acts.shape[:2], dtype=torch.bool, device=acts.device)
        if mask is None
        else mask.to(acts.device)
    )
    if not bool(real.any(1).all()):
        raise InputError(f"prompt {int((~real.any(1)).nonzero()[0])} has no real token")
    pooled = (acts.double() * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    return renyi_entropy(pooled, alpha=alpha)


def vne_regulariser(z: Float[Tensor, "sample d"]) -> Float64[Tensor, ""] | Float[Tensor, ""]:
    """Von Neumann entropy of a batch, differentiable: add minus (or plus) a multiple of it to a loss.

    As :func:`von_neumann_entropy`, in z's float type, through the singular values of the rows at length 1 (their
    gradient is finite where eigenvalues coincide, since only values are used). References: Kim et al. 2023, eq. 5.
    """
    s = torch.linalg.svdvals(torch.nn.functional.normalize(z, dim=1))
    p = s.square() / len(z)
    # d(p log p)/dp is infinite at 0: dead directions neither count nor pull
    alive = p > torch.finfo(p.dtype).eps
    return -(p[alive] * p[alive].log()).sum()
