"""Learners of one shape that take each step together: the products one by one, all that follows in the same few calls.

Where dictionaries are small a step is mostly the cost of asking for some hundred small operations; here they are asked
for once. The weights of all learners lie side by side in four tensors, of which each learner's coder and optimiser hold
their part, so that checkpoints, resampling and the finished coder are those of a learner that trains alone: to the bit
where d_in x d_sae and rows x d_in are multiples of 16, else up to the rounding of products of unaligned matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from sae.learner import Learner
from sae.objectives import Bank, Moment, objective_abreast
from sae.optimisers import Optimiser, Team
from sae.precision import products
from sae.screening import screens

__all__ = ["Stack", "stacked"]

_OWN = ("seed", "k", "lr", "warmup", "decay", "dead_after", "encoder_scale", "checkpoint_every", "log_every")
"""Options in which learners of one stack may differ."""
_CELLS, _WEIGHTS = 1 << 19, 1 << 18
"""Pre-activations of a batch and weights of an encoder up to which it pays (measured, ``benchmarks/sae_together.py``):
above them the arithmetic is all the cost, and weights side by side leave the cache between two uses."""


def stacked(learners: Sequence[Learner]) -> list[list[int]]:
    """Which learners can step together: groups of their numbers, a learner by itself among them.

    They are of the TopK family, read and write the same widths at the same step, differ in nothing but seed, k, rate
    and window, and are so small that it pays.
    """
    found: dict[Any, list[int]] = {}
    for number, learner in enumerate(learners):
        found.setdefault(_shape(learner) or number, []).append(number)
    return list(found.values())


def _shape(learner: Learner) -> tuple[Any, ...] | None:
    config, coder = learner.config, learner.coder
    able = (
        config.keeps_few
        and config.wiring in ("sae", "transcoder", "crosscoder")
        and not config.end_to_end
        and config.precision == "float32"
        and learner.peers.size == 1
        and config.batch_size * config.d_sae <= _CELLS
        and coder.d_in * config.d_sae <= _WEIGHTS
        and not screens(coder, coder.W_dec[:1, :1].expand(1, coder.d_in), config.screen)
    )
    if not able:
        return None
    rest = tuple((name, str(value)) for name, value in config.as_dict().items() if name not in _OWN)
    return (*rest, coder.d_in, coder.d_out, learner.step, coder.W_dec.device)


def _pace(learner: Learner) -> tuple[float, ...]:
    """Learners with the same have the same rate at every step."""
    config = learner.config
    return config.peak(learner.coder.d_out), config.warmup, config.decay


class Stack:
    """Several learners; their coders' weights become parts of its own."""

    def __init__(self, learners: Sequence[Learner]) -> None:
        # those that step at one rate, and those that keep as many codes, lie side by side
        self.learners = sorted(learners, key=lambda one: (_pace(one), one.coder.k))
        self.order = [self.learners.index(one) for one in learners]
        coders = tuple(one.coder for one in self.learners)
        device, d_sae = coders[0].W_dec.device, coders[0].d_sae
        with torch.no_grad():
            self.bank = Bank(
                coders=coders,
                # a latent's weights side by side in memory, as in a coder
                W_enc=nn.Parameter(torch.cat([c.W_enc.T for c in coders]).T),
                b_enc=nn.Parameter(torch.cat([c.b_enc for c in coders])),
                W_dec=nn.Parameter(torch.cat([c.W_dec for c in coders])),
                b_dec=nn.Parameter(torch.stack([c.b_dec for c in coders])),
            )
        for number, one in enumerate(self.learners):
            for name, parameter in one.coder.named_parameters():
                parameter.data = _part(getattr(self.bank, name).detach(), name, number, d_sae)
            kept = one.optimiser.tensors()
            one.optimiser = Optimiser(one.config.optimizer, one.coder.named_parameters(), one.config.betas)
            one.optimiser.restore(kept)
        self.last_fired = torch.stack([one.last_fired for one in self.learners])
        for one, mine in zip(self.learners, self.last_fired, strict=True):
            one.last_fired = mine
        self.windows = torch.tensor([one.window for one in self.learners], device=device)[:, None]
        groups = [list(same) for _, same in groupby(self.learners, key=_pace)]
        self.paces = [(Team([one.optimiser for one in group]), group) for group in groups]

    def advance(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[tuple[dict[str, float], float]]:
        """One step on everyone's scaled rows and targets: what :meth:`Learner.advance` tells of each, and its rate."""
        places = [self.order.index(number) for number in range(len(self.order))]
        xs, ys = [xs[place] for place in places], [ys[place] for place in places]
        config, step = self.learners[0].config, self.learners[0].step
        x = _side_by_side(xs)
        y = x if all(a is b for a, b in zip(xs, ys, strict=True)) else _side_by_side(ys)
        parameters = (self.bank.W_enc, self.bank.b_enc, self.bank.W_dec, self.bank.b_dec)
        with products(config.precision, x.device):
            terms = objective_abreast(self.bank, x, y, config, self._moments(x.shape[1]))
            losses = torch.stack([term.loss for term in terms])
            grads = torch.autograd.grad(losses.sum(), parameters)
        numbers = self._numbers(losses, terms, ys)
        rates = self._descend(dict(zip(("W_enc", "b_enc", "W_dec", "b_dec"), grads, strict=True)))
        fired = torch.stack([term.fired for term in terms])
        self.last_fired[fired > 0] = (step + 1) * config.batch_size
        for place, (one, term) in enumerate(zip(self.learners, terms, strict=True)):
            if one.coder.rule.pooled:
                one.learn_threshold(term.smallest)
            one.step += 1
            if config.resample_every and one.step % config.resample_every == 0 and one.step < config.steps:
                one.resample(xs[place], ys[place], term.error)
        return [(numbers[place], rates[place]) for place in self.order]

    def _moments(self, n: int) -> list[Moment]:
        lead = self.learners[0]
        config, done = lead.config, lead.step * lead.config.batch_size
        dead = self.last_fired + self.windows <= done
        moments = []
        for one, mine, count in zip(self.learners, dead, dead.sum(1).tolist(), strict=True):
            one.n_dead = count
            which = mine.nonzero().squeeze(1) if count and config.auxk else None
            moments.append(Moment(n_rows=n, progress=one.step / config.steps, dead=which, guess=one.smallest))
        return moments

    def _numbers(self, losses: Tensor, terms: Sequence[Any], ys: Sequence[Tensor]) -> list[dict[str, float]]:
        """Loss, FVU and L0 of each."""
        n = len(ys[0])
        known = {
            id(y): float(y.square().sum()) - float(y.sum(0).double().square().sum()) / n
            for y in {id(y): y for y in ys}.values()
        }
        errors = torch.stack([term.error for term in terms]).sum(1).tolist()
        codes = torch.stack([term.fired for term in terms]).sum(1).tolist()
        told = zip(losses.tolist(), errors, codes, (known[id(y)] for y in ys), strict=True)
        return [{"loss": loss, "fvu": error / about, "l0": on / n} for loss, error, on, about in told]

    @torch.no_grad()
    def _descend(self, grads: dict[str, Tensor]) -> list[float]:
        """Gradients to steps, as :meth:`Learner.advance` does; the rate of each learner."""
        config, bank = self.learners[0].config, self.bank
        unit = config.decoder == "unit"
        if unit:
            grad, own = grads["W_dec"], bank.W_dec.detach()
            grad.addcmul_(torch.linalg.vecdot(grad, own)[:, None], own, value=-1)
        for number, coder in enumerate(bank.coders):
            for name, parameter in coder.named_parameters():
                parameter.grad = _part(grads[name], name, number, coder.d_sae)
            if config.clip:
                nn.utils.clip_grad_norm_(coder.parameters(), config.clip)
        rates: list[float] = []
        for team, members in self.paces:
            one = members[0]
            rate = one.config.rate(one.step, one.coder.d_out)
            team.step(rate)
            rates += [rate] * len(members)
        if unit:
            bank.W_dec.div_(bank.W_dec.norm(dim=1, keepdim=True).clamp_min_(1e-12))
        return rates


def _part(whole: Tensor, name: str, number: int, d_sae: int) -> Tensor:
    """What belongs to one learner."""
    if name == "b_dec":
        return whole[number]
    return (
        whole[:, number * d_sae : (number + 1) * d_sae]
        if name == "W_enc"
        else whole[number * d_sae :][:d_sae]
    )


def _side_by_side(rows: Sequence[Tensor]) -> Tensor:
    """[coder, sample, d]; the same rows for everyone are not copied."""
    return (
        rows[0].expand(len(rows), *rows[0].shape)
        if all(r is rows[0] for r in rows)
        else torch.stack(list(rows))
    )
