"""Evaluation: how much of the data a coder gives back, at what sparsity, and beside which simpler things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from sae.coder import Coder
from sae.data import RowSource, row_source
from sae.splicing import loss_recovered, tokens_of, written

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["DECADES", "DENSE", "Evaluation", "evaluate"]

_PIECE = 4096
DENSE = 0.1
"""A latent that fires on more than this share of rows is dense."""
DECADES = np.arange(-7.0, 0.5, 0.5)
"""Edges of the density histogram: log10 of the share of rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Evaluation(Result):
    """``value``: fraction of variance unexplained; ``chance``: that of the random dictionary."""

    explained_variance: float
    """1 - FVU: errors and distances from the mean are summed over rows, then divided (the dataset convention)."""
    explained_variance_per_row: float
    """The mean over rows of 1 - error / distance from the mean: weighs small rows as much as large ones."""
    mse: float
    """Mean over rows of the squared error, summed over coordinates."""
    l0: float
    """Codes used a row."""
    l1: float
    """Mean over rows of sum |code| times the length of its direction: the same however codes and directions share
    the scale."""
    dead: float
    """Share of latents that fire on none of the rows."""
    dense: float
    """Share of latents that fire on more than a tenth of the rows."""
    cosine: float
    """Mean cosine between rows and reconstructions, both about the data's mean."""
    cosine_raw: float
    """The same about the origin."""
    norm_ratio: float
    """Mean over rows of |x^| / |x|."""
    relative_bias: float
    """E|x^|^2 / E[x.x^]: below 1 where reconstructions are too short (Rajamanoharan et al. 2024, "Gated", eq. 10)."""
    shrinkage: float
    """1 - 1/g, g the factor on all codes at once that makes the error smallest: 0 if codes are as large as they
    should be, 0.1 if they are a tenth too small."""
    density: np.ndarray
    """[latent] share of rows a latent fires on."""
    strongest: np.ndarray
    """[latent] largest |code|."""
    density_histogram: np.ndarray
    """Latents that fire at all, by log10 of their density, in bins of half a decade from ``DECADES``."""
    row_error: np.ndarray
    """[sample] squared error."""
    row_power: np.ndarray
    """[sample] squared distance from the mean."""
    baselines: Mapping[str, float]
    """Name -> FVU on the same rows."""
    recovered: Mapping[str, float]
    """Through the model, where one was given: the shares and losses of :func:`sae.loss_recovered`; else empty."""

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
    model: Any = None,
    site: str | Site | None = None,
    target: str | Site | None = None,
    reference: Any = None,
    groups: Sequence[int] | Tensor | np.ndarray | None = None,
    skip_first: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Reconstruction, sparsity and dead latents of ``coder`` on ``data``, with three baselines.

    Parameters
    ----------
    coder
        Anything with ``encode`` and ``decode``, ``d_sae``, ``k`` and ``W_dec``.
    data
        Rows [sample, d] it was not trained on, or a store; a pair (rows, targets) for a transcoder. With ``model``:
        texts, Tokens or ids, whose activations at ``site`` are the rows.
    model
        A language model: the loss through it is measured too (:func:`sae.loss_recovered`).
    target
        With ``model``: where a transcoder writes.
    reference
        Rows on which the baselines are fitted (the training rows). None fits them on ``data`` itself, which flatters
        them.
    groups
        [sample] the text of each row; the standard error then leaves out whole texts (with ``model`` it does).
    skip_first
        With ``model``: leave out each text's first token, in the rows and in the splice.

    Returns
    -------
    Evaluation
        FVU = sum |x - x^|^2 / sum |x - mean|^2 over all rows (the dataset convention). Baselines: PCA with k
        components (the same number of numbers a row); a random dictionary of the same size whose k best-aligned
        directions are weighed by least squares; and the mean (1 by definition, not listed).

    Raises
    ------
    InputError
        Rows of another width than the coder's, or constant rows; a model without a site.
    ModelError
        The model predicts no next token.
    """
    recovered: dict[str, float] = {}
    if model is not None:
        recovered = _through(coder, model, data, (site, target), skip_first)
        rows, groups = _captured(model, data, site, skip_first)
        data = rows if target is None else (rows, _captured(model, data, target, skip_first)[0])
    rows, targets, place = _pair(data, None if model is not None else site, coder)
    fitted = targets if reference is None else _sampled(row_source(reference, site), seed)
    mean = targets.double().mean(0)
    power = (targets.double() - mean).square().sum(1)
    if float(power.sum()) <= 0:
        raise InputError("every row is the same: there is no variance to explain")
    tally = _tallied(coder, rows)
    baselines = _baselines(coder, fitted, targets, power, seed)
    error = (targets.double() - tally.made.double()).square().sum(1)
    fvu = float(error.sum() / power.sum())
    density = tally.fired.double() / len(rows)
    return Evaluation(
        name="FVU",
        value=fvu,
        stderr=_ratio_stderr(error, power, groups),
        n=len(rows),
        chance=baselines["random dictionary"],
        convention="sum of squared errors over sum of squared distances from the mean, all rows",
        explained_variance=1.0 - fvu,
        explained_variance_per_row=float((1 - error / power)[power > 0].mean()),
        mse=float(error.mean()),
        l0=float(tally.fired.sum() / len(rows)),
        l1=float(tally.length / len(rows)),
        dead=float((density == 0).double().mean()),
        dense=float((density > DENSE).double().mean()),
        **_sizes(targets.double(), tally.made.double(), mean, coder),
        density=density.numpy(),
        strongest=tally.strongest.double().numpy(),
        density_histogram=np.histogram(np.log10(density[density > 0].numpy()), bins=DECADES)[0],
        row_error=error.numpy(),
        row_power=power.numpy(),
        baselines=baselines,
        recovered=recovered,
        provenance={
            "d_sae": coder.d_sae,
            "k": coder.k,
            "place": place,
            "baselines_fitted_on": "the same rows" if reference is None else "reference rows",
        },
    )


def _through(coder: Coder, model: Any, texts: Any, places: Any, skip_first: bool) -> dict[str, float]:
    site, target = places
    if site is None:
        raise InputError("a model is read at a site: say site=, the one the coder was trained on")
    if target is None and _writes_elsewhere(coder):
        raise InputError(f"a {coder.wiring} writes to another site than it reads: say target=")
    loss = loss_recovered(coder, model, texts, site, target=target, skip_first=skip_first)
    shares = {"ce": float(loss.value), "ce_against_zero": loss.ce_against_zero}
    return shares | {"kl": loss.kl, "kl_against_zero": loss.kl_against_zero} | dict(loss.losses)


def _baselines(coder: Coder, fitted: Tensor, rows: Tensor, power: Tensor, seed: int) -> dict[str, float]:
    few = _few(rows, seed)
    mean = fitted.double().mean(0).float()
    return {
        f"PCA, {min(coder.k, rows.shape[1])} components": _pca_fvu(fitted, rows, coder.k),
        "random dictionary": _random_fvu(mean, rows[few], float(power[few].sum()), coder, seed),
    }


def _captured(model: Any, texts: Any, site: Any, skip_first: bool) -> tuple[Tensor, Tensor | None]:
    """Rows at a site of every real token, and the text of each."""
    tokens = tokens_of(model, texts)
    rows = torch.cat(
        [model.capture(part, site).rows(site).flatten(1).float().cpu() for part in tokens.batches(64)]
    )
    where = tokens.mask.nonzero()
    if skip_first:
        kept = where[:, 1] != tokens.mask.long().argmax(1)[where[:, 0]]
        rows, where = rows[kept], where[kept]
    return rows, where[:, 0] if len(tokens) > 1 else None


def _writes_elsewhere(coder: Coder) -> bool:
    return getattr(coder, "wiring", "sae") in ("transcoder", "skip", "cross-layer")


def _pair(data: Any, site: Any, coder: Coder) -> tuple[Tensor, Tensor, str]:
    """Rows, what should be written for them, and where they come from."""
    pair = isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    source = row_source(data[0] if pair else data, site)
    if source.d != coder.d_in:
        raise InputError(
            f"this coder reads rows of width {coder.d_in}; {source.place} has {source.d} (another site?)"
        )
    if not pair and _writes_elsewhere(coder):
        raise InputError(f"a {coder.wiring} is judged by what it should write: give a pair (rows, targets)")
    rows = source.draw(torch.arange(source.n))
    targets = row_source(data[1]).draw(torch.arange(source.n)) if pair else rows
    wide = getattr(coder, "d_out", coder.d_in)
    if targets.shape[1] != wide:
        raise InputError(f"this coder writes rows of width {wide}; the targets have {targets.shape[1]}")
    return rows, targets, source.place


@dataclass(slots=True, kw_only=True)
class _Tally:
    made: Tensor
    fired: Tensor
    strongest: Tensor
    length: float


@torch.no_grad()
def _tallied(coder: Coder, rows: Tensor) -> _Tally:
    """One pass of the coder over the rows, piece by piece."""
    made, fired = [], torch.zeros(coder.d_sae, dtype=torch.long)
    strongest, length = torch.zeros(coder.d_sae), 0.0
    norm = coder.W_dec.norm(dim=1).double()
    for piece in rows.split(_PIECE):
        codes = coder.encode(piece)
        made.append(written(coder, codes, piece))
        fired += (codes != 0).sum(0)
        size = codes.abs()
        strongest = torch.maximum(strongest, size.amax(0).float())
        length += float(size.double().sum(0) @ norm)
    return _Tally(made=torch.cat(made), fired=fired, strongest=strongest, length=length)


@torch.no_grad()
def _sizes(x: Tensor, made: Tensor, mean: Tensor, coder: Coder) -> dict[str, Any]:
    """How long reconstructions are, and which way they point."""
    similarity = torch.nn.functional.cosine_similarity
    offset = made - coder.b_dec.double() if getattr(coder, "wiring", "sae") == "sae" else made - mean
    want, said = float(((x - made + offset) * offset).sum()), float(offset.square().sum())
    product = float((x * made).sum())
    power = float(made.square().sum())
    return {
        "cosine": float(similarity(x - mean, made - mean, dim=1).mean()),
        "cosine_raw": float(similarity(x, made, dim=1).mean()),
        "norm_ratio": float((made.norm(dim=1) / x.norm(dim=1).clamp_min(1e-300)).mean()),
        "relative_bias": power / product if power else 0.0,  # the limit of ever shorter reconstructions
        "shrinkage": 1 - said / want if want else 0.0,
    }


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
