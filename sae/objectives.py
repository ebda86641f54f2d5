"""What a step minimises: squared error, what keeps codes few, and what brings dead latents back.

loss = (sum over rows of |y - y^|^2 + sparsity x penalty + auxk x |rest - rest^|^2) / (rows x d_out), in coordinates in
which the data have unit variance, so that its first part is about the fraction of variance unexplained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sae.choosing import chosen, chosen_abreast
from sae.estimators import step
from sae.parallel import Alone, Peers
from sae.precision import product
from sae.products import read, write
from sae.pursuit import pursue
from sae.selection import Support, largest_of_rows

if TYPE_CHECKING:
    from sae.coder import Coder
    from sae.config import TrainConfig

__all__ = ["Bank", "Moment", "Terms", "objective", "attempt", "objective_abreast", "rebuilt"]


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bank:
    """Coders of one make side by side: coder j has the latents from j d_sae on, and row j of b_dec."""

    coders: tuple[Coder, ...]
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    """[coder, d_out]"""


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
        return coder.base(x) + write(codes, coder.W_dec, support, _low(coder.W_dec, config))
    codes = coder.rule.codes(coder, _pre(coder, x, config))
    return coder.base(x) + product(codes, coder.W_dec, config.precision)


def _pre(coder: Coder, x: Tensor, config: TrainConfig) -> Tensor:
    """Pre-activations in the precision asked for."""
    if config.precision != "bf16":
        return coder.pre(x)
    return product(coder.shifted(x), coder.W_enc, "bf16") + coder.b_enc


def _low(tensor: Tensor, config: TrainConfig) -> Tensor | None:
    """A copy to be read in place of ``tensor``, where that is asked for."""
    return tensor.detach().bfloat16() if config.precision == "bf16" else None


def _kept(
    coder: Coder, x: Tensor, config: TrainConfig, moment: Moment
) -> tuple[Tensor, Support, Tensor, float]:
    """Rows as the encoder reads them, places and values of the codes kept, and the smallest where rows compete."""
    shift = coder.b_dec if coder.centred else None
    centred = coder.shifted(x).detach()
    support, values, smallest = chosen(
        coder,
        centred,
        guess=moment.guess,
        peers=moment.peers,
        screen=config.screen,
        precision=config.precision,
    )
    if config.precision == "bf16":
        centred = centred.bfloat16()
    pre = read(centred, shift, coder.W_enc, coder.b_enc, values, support)
    return centred, support, coder.rule.act(pre), smallest


def _few(coder: Coder, x: Tensor, y: Tensor, config: TrainConfig, moment: Moment) -> Terms:
    """The TopK family: one dense product, then only the codes that are on."""
    centred, support, codes, smallest = _kept(coder, x, config, moment)
    base, low = coder.base(x), _low(coder.W_dec, config)
    if coder.kind == "matryoshka":
        rests = _prefixes(y - base, codes, (coder.W_dec, low), support, support.col, config.widths)
    else:
        rests = [y - base - write(codes, coder.W_dec, support, low)]
    errors = [rest.square().sum(1) for rest in rests]
    total = torch.stack([error.sum() for error in errors]).mean()
    if config.flops:
        use = codes.new_zeros(coder.d_sae).index_add(0, support.col, codes.abs()) / moment.n_rows
        total = total + config.flops * moment.n_rows * use.square().sum()
    if moment.dead is not None and config.auxk and len(moment.dead):
        total = total + config.auxk * _auxiliary(
            coder, centred, rests[-1].detach(), moment.dead, config.k_aux, low
        )
    on = support.col[codes.detach() != 0]
    return Terms(
        loss=total / (moment.n_rows * coder.d_out),
        error=errors[-1].detach(),
        fired=torch.bincount(on, minlength=coder.d_sae),
        smallest=smallest,
    )


def _prefixes(
    rest: Tensor,
    codes: Tensor,
    directions: tuple[Tensor, Tensor | None],
    support: Support,
    latent: Tensor,
    widths: tuple[int, ...],
) -> list[Tensor]:
    """What each nested prefix of the dictionary leaves over (Bussmann et al. 2025); each code is written once.

    ``latent`` [code]: which latent of its own dictionary a code is of.
    """
    rests, start = [], 0
    for stop in widths:
        inside = (latent >= start) & (latent < stop)
        part = Support.of_flat(support.flat[inside], support.n_rows, support.n_latents)
        rest = rest - write(codes[inside], directions[0], part, directions[1])
        rests.append(rest)
        start = stop
    return rests


def _auxiliary(
    coder: Coder, centred: Tensor, rest: Tensor, dead: Tensor, k_aux: int, low: Tensor | None
) -> Tensor:
    """Squared error of the dead latents' best attempt at what the living leave (Gao et al. 2024, appendix A.2).

    The error a row leaves is a constant here; the gradient reaches the dead latents' encoder and decoder, and no one
    else's.
    """
    kept, pre = attempt(coder, centred, dead, k_aux)
    starts = torch.arange(0, kept.numel() + 1, kept.shape[1], device=kept.device)
    support = Support(starts, kept.view(-1), coder.d_sae)
    values = read(centred, None, coder.W_enc, coder.b_enc, pre.view(-1), support)
    return (rest - write(coder.rule.act(values), coder.W_dec, support, low)).square().sum()


@torch.no_grad()
def attempt(coder: Coder, centred: Tensor, dead: Tensor, k_aux: int) -> tuple[Tensor, Tensor]:
    """[sample, k] which of the dead latents each row would use, and their pre-activations."""
    k = min(k_aux or max(1, coder.d_out // 2), len(dead))
    weight, bias = coder.W_enc.T.index_select(0, dead).T, coder.b_enc.index_select(0, dead)
    rounded = centred.dtype == torch.bfloat16
    pre = product(centred, weight, "bf16") + bias if rounded else torch.addmm(bias, centred, weight)
    signed = coder.rule.act(pre.new_tensor([-1.0]))[0] != 0
    kept = largest_of_rows(pre.abs() if signed else pre, k)
    return dead[kept], pre.gather(1, kept)


def objective_abreast(
    bank: Bank, x: Tensor, y: Tensor, config: TrainConfig, moments: Sequence[Moment]
) -> list[Terms]:
    """:func:`objective` of coders of the TopK family on their own rows [coder, sample, d], all in the same few calls.

    Loss and gradients of each are those it has alone: rows and latents of different coders never meet.
    """
    first, (m, n) = bank.coders[0], x.shape[:2]
    shift = bank.b_dec if first.centred else None
    centred = (x if shift is None else x - shift.detach()[:, None]).reshape(m * n, -1)
    support, values, smallest = chosen_abreast(
        bank.coders, centred.view(m, n, -1), [moment.guess for moment in moments]
    )
    codes = first.rule.act(read(centred, shift, bank.W_enc, bank.b_enc, values, support))
    rest = _Less.apply(y, bank.b_dec)
    assert isinstance(rest, Tensor)  # pyright's knowledge of autograd functions ends here
    if first.kind == "matryoshka":
        latent = support.col % first.d_sae
        rests = _prefixes(rest, codes, (bank.W_dec, None), support, latent, config.widths)
    else:
        rests = [rest - write(codes, bank.W_dec, support)]
    errors = [each.square().sum(1).view(m, n) for each in rests]
    sums = [error.sum(1) for error in errors]
    total = (
        sums[0]
        if len(sums) == 1
        else torch.stack([torch.stack(own).mean() for own in zip(*sums, strict=True)])
    )
    if config.flops:
        use = codes.new_zeros(support.n_latents).index_add(0, support.col, codes.abs()) / n
        total = total + config.flops * n * use.square().view(m, -1).sum(1)
    hopeful = [j for j, moment in enumerate(moments) if moment.dead is not None and len(moment.dead)]
    if hopeful and config.auxk:
        left = rests[-1].detach().view(m, n, -1)
        extra = _auxiliary_abreast(bank, centred.view(m, n, -1), left, hopeful, moments, config.k_aux)
        total = total.index_add(0, torch.tensor(hopeful, device=x.device), extra, alpha=config.auxk)
    on = support.col[codes.detach() != 0]
    fired = torch.bincount(on, minlength=support.n_latents).view(m, -1)
    losses = (total / (n * first.d_out)).unbind()
    told = zip(losses, errors[-1].detach(), fired, smallest, strict=True)
    return [Terms(loss=a, error=b, fired=c, smallest=d) for a, b, c, d in told]


class _Less(torch.autograd.Function):
    """Rows [coder, sample, d] less a vector for each coder, as [coder x sample, d]; gradients are summed one by one."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        rows, shift = given
        ctx.save_for_backward(shift)
        return (rows - shift[:, None]).view(-1, rows.shape[2])

    @staticmethod
    def backward(ctx: Any, *given: Any) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g,) = given
        shape = ctx.saved_tensors[0].shape
        return None, -torch.stack([part.sum(0) for part in g.view(shape[0], -1, shape[1])])


def _auxiliary_abreast(  # noqa: PLR0913 - what one coder's has, of several
    bank: Bank, centred: Tensor, rest: Tensor, which: list[int], moments: Sequence[Moment], k_aux: int
) -> Tensor:
    """:func:`_auxiliary` of the coders ``which``, [coder]."""
    n, width, kept, pre, lengths = centred.shape[1], bank.coders[0].d_sae, [], [], []
    for j in which:
        dead = moments[j].dead
        assert dead is not None  # the caller has looked
        columns, values = attempt(bank.coders[j], centred[j], dead, k_aux)
        kept.append(columns.view(-1) + j * width)
        pre.append(values.view(-1))
        lengths += [columns.shape[1]]
    count = torch.tensor(lengths, device=rest.device).repeat_interleave(n)
    offsets = count.new_zeros(len(count) + 1)
    torch.cumsum(count, 0, out=offsets[1:])
    support = Support(offsets, torch.cat(kept), len(bank.b_enc))
    some = slice(None) if len(which) == len(bank.coders) else which
    rows = centred[some].reshape(len(which) * n, -1)
    values = read(rows, None, bank.W_enc, bank.b_enc, torch.cat(pre), support)
    written = write(bank.coders[0].rule.act(values), bank.W_dec, support)
    return (rest[some].reshape(written.shape) - written).square().view(len(which), -1).sum(1)


def _dense(coder: Coder, x: Tensor, y: Tensor, config: TrainConfig, moment: Moment) -> Terms:
    """Kinds whose codes may be many: the plain dense form, with the penalty of the kind."""
    pre = _pre(coder, x, config)
    codes = coder.rule.codes(coder, pre)
    error = (y - coder.base(x) - product(codes, coder.W_dec, config.precision)).square().sum(1)
    strength = config.sparsity * min(
        1.0, moment.progress / config.sparsity_warmup if config.sparsity_warmup else 1.0
    )
    total = error.sum() + strength * _penalty(coder, pre, codes, config, moment.progress)
    if coder.kind == "gated":
        # eq. 8: the gate alone must explain the rows too, by a decoder that does not learn from it
        alone = product(pre.relu(), coder.W_dec.detach(), config.precision) + coder.b_dec.detach()
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
