"""What a step minimises: squared error, what keeps codes few, and what brings dead latents back.

loss = (sum over rows of |y - y^|^2 + sparsity x penalty + auxk x |rest - rest^|^2) / (rows x d_out), in coordinates in
which the data have unit variance, so that its first part is about the fraction of variance unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sae.choosing import chosen
from sae.estimators import step
from sae.parallel import Alone, Peers
from sae.products import read, write
from sae.pursuit import pursue
from sae.selection import Support, largest_of_rows

if TYPE_CHECKING:
    from sae.coder import Coder
    from sae.config import TrainConfig

__all__ = ["Moment", "Terms", "objective", "rebuilt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What an objective may depend on besides rows and weights."""

    n_rows: int
    """Of the whole batch, over all processes."""
    progress: float = 1.0
    """Share of the steps that are done."""
    dead: Tensor | None = None
    """Indices of the latents that count as dead; None: not asked for."""
    guess: float = 0.0
    """The smallest code of the last batch."""
    peers: Peers | Alone | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """A step's loss and what is told of it."""

    loss: Tensor
    error: Tensor
    """[sample] squared error of each row."""
    fired: Tensor
    """[latent] how many of the rows used each latent."""
    smallest: float = 0.0


def objective(coder: Coder, x: Tensor, y: Tensor, config: TrainConfig, moment: Moment) -> Terms:
    """The loss of ``coder`` on rows ``x`` and targets ``y``; for an SAE they are the same tensor."""
    if coder.rule.tied:
        return _tied(coder, x, y, moment)
    if coder.rule.pooled or coder.rule.columns is not None:
        return _few(coder, x, y, config, moment)
    return _dense(coder, x, y, config, moment)


def rebuilt(coder: Coder, x: Tensor, config: TrainConfig, moment: Moment) -> Tensor:
    """What ``coder`` makes of rows ``x`` while it learns: differentiable in its weights, at the cost of its forward."""
    if coder.rule.tied:
        support, weights = _pursued(coder, x)
        return coder.b_dec + write(weights, coder.W_dec, support)
    if coder.rule.pooled or coder.rule.columns is not None:
        _, support, codes, _ = _kept(coder, x, config, moment)
        return coder.base(x) + write(codes, coder.W_dec, support)
    return coder.base(x) + coder.rule.codes(coder, coder.pre(x)) @ coder.W_dec


def _kept(
    coder: Coder, x: Tensor, config: TrainConfig, moment: Moment
) -> tuple[Tensor, Support, Tensor, float]:
    """Rows as the encoder reads them, places and values of the codes kept, and the smallest where rows compete."""
    shift = coder.b_dec if coder.centred else None
    centred = coder.shifted(x).detach()
    support, values, smallest = chosen(
        coder, centred, guess=moment.guess, peers=moment.peers, screen=config.screen
    )
    return (
        centred,
        support,
        coder.rule.act(read(centred, shift, coder.W_enc, coder.b_enc, values, support)),
        smallest,
    )


def _few(coder: Coder, x: Tensor, y: Tensor, config: TrainConfig, moment: Moment) -> Terms:
    """The TopK family: one dense product, then only the codes that are on."""
    centred, support, codes, smallest = _kept(coder, x, config, moment)
    base = coder.base(x)
    if coder.kind == "matryoshka":
        rests = _prefixes(y - base, codes, coder, support, config.widths)
    else:
        rests = [y - base - write(codes, coder.W_dec, support)]
    errors = [rest.square().sum(1) for rest in rests]
    total = torch.stack([error.sum() for error in errors]).mean()
    if config.flops:
        use = codes.new_zeros(coder.d_sae).index_add(0, support.col, codes.abs()) / moment.n_rows
        total = total + config.flops * moment.n_rows * use.square().sum()
    if moment.dead is not None and config.auxk and len(moment.dead):
        total = total + config.auxk * _auxiliary(
            coder, centred, rests[-1].detach(), moment.dead, config.k_aux
        )
    on = support.col[codes.detach() != 0]
    return Terms(
        loss=total / (moment.n_rows * coder.d_out),
        error=errors[-1].detach(),
        fired=torch.bincount(on, minlength=coder.d_sae),
        smallest=smallest,
    )


def _prefixes(
    rest: Tensor, codes: Tensor, coder: Coder, support: Support, widths: tuple[int, ...]
) -> list[Tensor]:
    """What each nested prefix of the dictionary leaves over (Bussmann et al. 2025); each code is written once."""
    rests, start = [], 0
    for stop in widths:
        inside = (support.col >= start) & (support.col < stop)
        part = Support.of_flat(support.flat[inside], support.n_rows, coder.d_sae)
        rest = rest - write(codes[inside], coder.W_dec, part)
        rests.append(rest)
        start = stop
    return rests


def _auxiliary(coder: Coder, centred: Tensor, rest: Tensor, dead: Tensor, k_aux: int) -> Tensor:
    """Squared error of the dead latents' best attempt at what the living leave (Gao et al. 2024, appendix A.2).

    The error a row leaves is a constant here; the gradient reaches the dead latents' encoder and decoder, and no one
    else's.
    """
    k = min(k_aux or max(1, coder.d_out // 2), len(dead))
    with torch.no_grad():
        bias = coder.b_enc.index_select(0, dead)
        pre = torch.addmm(bias, centred, coder.W_enc.T.index_select(0, dead).T)
        signed = coder.rule.act(pre.new_tensor([-1.0]))[0] != 0
        kept = largest_of_rows(pre.abs() if signed else pre, k)
    starts = torch.arange(0, kept.numel() + 1, k, device=kept.device)
    support = Support(starts, dead[kept].view(-1), coder.d_sae)
    values = read(centred, None, coder.W_enc, coder.b_enc, pre.gather(1, kept).view(-1), support)
    return (rest - write(coder.rule.act(values), coder.W_dec, support)).square().sum()


def _dense(coder: Coder, x: Tensor, y: Tensor, config: TrainConfig, moment: Moment) -> Terms:
    """Kinds whose codes may be many: the plain dense form, with the penalty of the kind."""
    pre = coder.pre(x)
    codes = coder.rule.codes(coder, pre)
    error = (y - coder.base(x) - codes @ coder.W_dec).square().sum(1)
    strength = config.sparsity * min(
        1.0, moment.progress / config.sparsity_warmup if config.sparsity_warmup else 1.0
    )
    total = error.sum() + strength * _penalty(coder, pre, codes, config, moment.progress)
    if coder.kind == "gated":
        # eq. 8: the gate alone must explain the rows too, by a decoder that does not learn from it
        alone = pre.relu() @ coder.W_dec.detach() + coder.b_dec.detach()
        total = total + (y - alone).square().sum()
    if config.flops:
        use = codes.abs().sum(0) / moment.n_rows
        total = total + config.flops * moment.n_rows * use.square().sum()
    return Terms(
        loss=total / (moment.n_rows * coder.d_out), error=error.detach(), fired=(codes.detach() != 0).sum(0)
    )


def _penalty(coder: Coder, pre: Tensor, codes: Tensor, config: TrainConfig, progress: float) -> Tensor:
    """Summed over rows. ``norm="decoder"`` weighs each code by its direction's length, so that lengths stay free."""
    length = coder.W_dec.norm(dim=1) if config.norm == "decoder" else torch.ones_like(coder.b_enc)
    if coder.kind == "gated":
        return (pre.relu() * length).sum()
    if coder.kind == "jumprelu" and config.penalty == "kind":
        return step(pre, coder.threshold, coder.bandwidth).sum()
    if config.penalty == "tanh":
        return torch.tanh(config.tanh_slope * codes * length).sum()
    weighed = codes * length  # these kinds have no negative codes
    if coder.kind == "panneal":
        p = 1.0 + (config.p_end - 1.0) * progress
        bent = (weighed + 1e-8).pow(p).sum()
        # the exponent changes the shape of the pressure, not its size (Karvonen et al. 2024, section 3.2)
        return bent * (weighed.sum() / bent).detach()
    return weighed.sum()


def _pursued(coder: Coder, x: Tensor) -> tuple[Support, Tensor]:
    found, weights = pursue(coder.shifted(x), coder.W_dec, coder.k, whole=coder.kind == "codebook")
    starts = torch.arange(0, found.numel() + 1, coder.k, device=x.device)
    return Support(starts, found.view(-1), coder.d_sae), weights.view(-1)


def _tied(coder: Coder, x: Tensor, y: Tensor, moment: Moment) -> Terms:
    support, weights = _pursued(coder, x)
    error = (y - coder.b_dec - write(weights, coder.W_dec, support)).square().sum(1)
    fired = torch.bincount(support.col[weights.detach() != 0], minlength=coder.d_sae)
    return Terms(loss=error.sum() / (moment.n_rows * coder.d_out), error=error.detach(), fired=fired)
