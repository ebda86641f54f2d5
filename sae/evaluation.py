"""Evaluation: how much of the data a coder gives back, at what sparsity, and beside which simpler things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from sae.coder import Coder
from sae.data import RowSource, row_source

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Evaluation", "evaluate", "match_dictionary"]

_PIECE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Evaluation(Result):
    """``value``: fraction of variance unexplained; ``chance``: that of the random dictionary."""

    explained_variance: float
    l0: float
    """Codes used a row."""
    dead: float
    """Share of latents that fire on none of the rows."""
    cosine: float
    """Mean cosine between rows and reconstructions, both about the data's mean."""
    density: np.ndarray
    """[latent] share of rows a latent fires on."""
    row_error: np.ndarray
    """[sample] squared error."""
    row_power: np.ndarray
    """[sample] squared distance from the mean."""
    baselines: Mapping[str, float]
    """Name -> FVU on the same rows."""

    def plot(self) -> go.Figure:
        """FVU beside the baselines."""
        from sae import plots

        names = ["this coder", *self.baselines]
        values = np.array([float(self.value), *self.baselines.values()])
        reach = np.full_like(values, np.nan)  # the baselines are drawn without whiskers
        reach[0] = 1.96 * float(self.stderr or 0.0)
        return plots.fvu_chart(
            names, values, low=values - reach, high=values + reach, title=f"{self.name} (n = {self.n})"
        )


def evaluate(
    coder: Coder,
    data: Any,
    *,
    site: str | Site | None = None,
    reference: Any = None,
    groups: Sequence[int] | Tensor | np.ndarray | None = None,
    seed: int = 0,
) -> Evaluation:
    """Reconstruction, sparsity and dead latents of ``coder`` on ``data``, with three baselines.

    Parameters
    ----------
    coder
        Anything with ``encode`` and ``decode``, ``d_sae``, ``k`` and ``W_dec``.
    data
        Rows [sample, d] it was not trained on, or a store.
    reference
        Rows on which the baselines are fitted (the training rows). None fits them on ``data`` itself, which flatters
        them.
    groups
        [sample] the text of each row; the standard error then leaves out whole texts.

    Returns
    -------
    Evaluation
        FVU = sum |x - x^|^2 / sum |x - mean|^2 over all rows (the dataset convention). Baselines: PCA with k
        components (the same number of numbers a row); a random dictionary of the same size whose k best-aligned
        directions are weighed by least squares; and the mean (1 by definition, not listed).

    Raises
    ------
    InputError
        Rows of another width than the coder's, or constant rows.
    """
    source = row_source(data, site)
    if source.d != coder.d_in:
        raise InputError(
            f"this coder reads rows of width {coder.d_in}; {source.place} has {source.d} (another site?)"
        )
    rows = source.draw(torch.arange(source.n))
    fitted = rows if reference is None else _sampled(row_source(reference, site), seed)
    mean = rows.double().mean(0)
    power = (rows.double() - mean).square().sum(1)
    if float(power.sum()) <= 0:
        raise InputError("every row is the same: there is no variance to explain")
    made, codes_used, fired = _reconstructed(coder, rows)
    error = (rows.double() - made.double()).square().sum(1)
    cosine = torch.nn.functional.cosine_similarity(rows.double() - mean, made.double() - mean, dim=1).mean()
    fvu = float(error.sum() / power.sum())
    few = _few(rows, seed)
    baselines = {
        f"PCA, {min(coder.k, source.d)} components": _pca_fvu(fitted, rows, coder.k),
        "random dictionary": _random_fvu(
            fitted.double().mean(0).float(), rows[few], float(power[few].sum()), coder, seed
        ),
    }
    return Evaluation(
        name="FVU",
        value=fvu,
        stderr=_ratio_stderr(error, power, groups),
        n=source.n,
        chance=baselines["random dictionary"],
        convention="sum of squared errors over sum of squared distances from the mean, all rows",
        explained_variance=1.0 - fvu,
        l0=codes_used,
        dead=float((fired == 0).double().mean()),
        cosine=float(cosine),
        density=(fired / source.n).numpy(),
        row_error=error.numpy(),
        row_power=power.numpy(),
        baselines=baselines,
        provenance={
            "d_sae": coder.d_sae,
            "k": coder.k,
            "place": source.place,
            "baselines_fitted_on": "the same rows" if reference is None else "reference rows",
        },
    )


def match_dictionary(
    learned: Float[Tensor, "latent _"], truth: Float[Tensor, "feature _"], *, threshold: float = 0.9
) -> Result:
    """How well a dictionary holds known directions: each true feature's best cosine among the learned ones.

    Returns
    -------
    Result
        ``.value`` is the mean of the best cosines (MMCS); ``.chance`` the same for as many random directions;
        ``.provenance["found"]`` the share of features above ``threshold`` and ``["best"]`` all best cosines.
    """
    if learned.shape[1] != truth.shape[1]:
        raise InputError(f"learned directions are {learned.shape[1]} wide, the true ones {truth.shape[1]}")
    random = torch.randn(learned.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best, chance = (_best_cosine(d.double(), truth.double()) for d in (learned.detach(), random))
    return Result(
        name="MMCS",
        value=float(best.mean()),
        stderr=float(best.std() / len(best) ** 0.5) if len(best) > 1 else None,
        n=len(best),
        chance=float(chance.mean()),
        convention="mean over true features of the largest cosine with a learned direction (signed)",
        provenance={
            "found": float((best > threshold).double().mean()),
            "threshold": threshold,
            "best": [float(b) for b in best],
        },
    )


def _best_cosine(learned: Tensor, truth: Tensor) -> Tensor:
    unit = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-30) for x in (learned, truth)]
    return (unit[1] @ unit[0].T).amax(1)


@torch.no_grad()
def _reconstructed(coder: Coder, rows: Tensor) -> tuple[Tensor, float, Tensor]:
    """Reconstructions [sample, d], codes used a row, and how often each latent fired."""
    made, fired = [], torch.zeros(coder.d_sae, dtype=torch.long)
    for piece in rows.split(_PIECE):
        codes = coder.encode(piece)
        made.append(coder.decode(codes))
        fired += (codes != 0).sum(0)
    return torch.cat(made), float(fired.sum() / len(rows)), fired


def _sampled(source: RowSource, seed: int, at_most: int = 16384) -> Tensor:
    order = torch.randperm(source.n, generator=torch.Generator().manual_seed(seed))[:at_most]
    return source.draw(order)


def _few(rows: Tensor, seed: int, at_most: int = 1000) -> Tensor:
    return torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:at_most]


def _pca_fvu(fitted: Tensor, rows: Tensor, k: int) -> float:
    mean = fitted.double().mean(0)
    centred = fitted.double() - mean
    basis = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -k:]
    offset = rows.double() - mean
    left = offset - (offset @ basis) @ basis.T
    own = rows.double() - rows.double().mean(0)
    return float(left.square().sum() / own.square().sum())


def _random_fvu(mean: Tensor, rows: Tensor, power: float, coder: Coder, seed: int) -> float:
    """Random unit directions, as many as latents: each row weighs its k best-aligned by least squares."""
    directions = torch.randn(
        coder.d_sae, rows.shape[1], generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64
    )
    directions = directions / directions.norm(dim=1, keepdim=True)
    offset = rows.double() - mean.double()
    chosen = (offset @ directions.T).topk(coder.k, dim=1).indices
    left = 0.0
    for block, picked in zip(offset.split(256), chosen.split(256), strict=True):
        atoms = directions[picked]
        # the pseudo-inverse: where k exceeds d the chosen directions are linearly dependent
        fit = atoms.transpose(1, 2) @ (torch.linalg.pinv(atoms.transpose(1, 2)) @ block[..., None])
        left += float((block - fit[..., 0]).square().sum())
    return left / power


def _ratio_stderr(error: Tensor, power: Tensor, groups: Any) -> float:
    """Block jackknife of sum(error) / sum(power)."""
    from interp.metrics.rows import blocks_of, jackknife

    blocks = blocks_of(len(error), 32, groups)
    if len(blocks) < 2:
        return float("nan")
    left_out = torch.stack([(error.sum() - error[b].sum()) / (power.sum() - power[b].sum()) for b in blocks])
    return float(jackknife(left_out))
