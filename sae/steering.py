"""Latents put to use: one made stronger, held at a value or taken away while the model runs, and what that does.

All are edits, so they work in ``model.logits``, ``model.capture`` and ``model.generate`` alike, compose with others,
and come off by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.edits import Edit, add
from interp.errors import InputError
from interp.frames import Where
from interp.results import Result
from interp.sites import Site
from sae.splicing import require_predictions, splice, tokens_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["EffectCurve", "ablate", "clamp", "effect_curve", "steer"]

Latents = int | Sequence[int]


def _checked(coder: Any, latents: Latents) -> list[int]:
    chosen = [int(i) for i in ([latents] if isinstance(latents, int | np.integer) else latents)]
    if not chosen:
        raise InputError("no latent was named")
    for latent in chosen:
        if not 0 <= latent < coder.d_sae:
            raise InputError(f"latent {latent}: this coder has {coder.d_sae}, 0-{coder.d_sae - 1}")
    return chosen


def steer(
    coder: Any,
    site: str | Site,
    latents: Latents,
    *,
    amount: float,
    position: Where | str = None,
    row: Where = None,
) -> Edit:
    """Add ``amount`` of the latents' directions, whatever their codes are: x + amount sum_j d_j.

    ``amount`` is in units of codes, so that a latent's largest code is as much as it ever says by itself.

    Raises
    ------
    InputError
        There is no such latent.
    """
    direction = coder.W_dec.detach()[_checked(coder, latents)].sum(0)
    plain = add(site, direction, scale=amount, position=position, row=row)

    def change(value: Tensor, at: Site, frame: Any) -> Tensor:
        shaped = value.flatten(2) if value.ndim > 3 else value
        if shaped.shape[-1] != len(direction):
            raise InputError(
                f"this coder writes rows of width {len(direction)}; {at} holds {list(value.shape)} (another site?)"
            )
        return plain.change(shaped, at, frame).view(value.shape)

    return Edit(sites=(site,), change=change, name="steer", position=position, row=row)


def clamp(
    coder: Any,
    site: str | Site,
    latents: Latents,
    *,
    value: float = 0.0,
    where: str = "everywhere",
    keep_error: bool = True,
    position: Where | str = None,
    row: Where = None,
) -> Edit:
    """Hold the latents' codes at ``value`` and leave the others.

    Parameters
    ----------
    where
        ``"everywhere"``, or ``"active"``: only at tokens on which the latent fires.
    keep_error
        Add only what the change of codes changes, so that the coder's own error stays in the model. False puts the
        whole reconstruction there.

    Raises
    ------
    InputError
        There is no such latent; while the model runs: a site of another width.
    """
    if where not in ("everywhere", "active"):
        raise InputError(f"where={where!r}; it is 'everywhere' or 'active'")
    chosen = _checked(coder, latents)

    def held(codes: Tensor) -> Tensor:
        old = codes[..., chosen]
        new = torch.full_like(old, value)
        codes[..., chosen] = torch.where(old != 0, new, old) if where == "active" else new
        return codes

    return splice(coder, site, codes=held, keep_error=keep_error, position=position, row=row)


def ablate(
    coder: Any,
    site: str | Site,
    latents: Latents,
    *,
    keep_error: bool = True,
    position: Where | str = None,
    row: Where = None,
) -> Edit:
    """Take the latents away: their codes are held at 0. See :func:`clamp`."""
    return clamp(coder, site, latents, value=0.0, keep_error=keep_error, position=position, row=row)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class EffectCurve(Result):
    """``value`` [amount]: mean effect of steering along one latent; ``chance`` [amount]: of the other latents."""

    amounts: np.ndarray
    random: np.ndarray
    """[direction, amount] the same for each of the other latents, brought to this one's length."""
    rank: np.ndarray
    """[amount] share of them that have at least as large an effect: 1 / (n + 1) is the least it can be."""

    def plot(self) -> go.Figure:
        """The curve, with the others' middle 90 % behind it."""
        from sae import plots

        low, middle, high = np.quantile(self.random, (0.05, 0.5, 0.95), axis=0)
        return plots.effect_chart(
            self.amounts, np.asarray(self.value), middle, low, high, title=self.name, unit=self.convention
        )


def effect_curve(
    coder: Any,
    model: Any,
    texts: Any,
    site: str | Site,
    latent: int,
    *,
    amounts: Sequence[float],
    metric: Callable[[Tensor], Tensor] | None = None,
    position: Where | str = None,
    n_random: int = 20,
    among: Sequence[int] | None = None,
    seed: int = 0,
) -> EffectCurve:
    """What steering along a latent does, beside steering as far along random latents.

    Parameters
    ----------
    amounts
        In units of the latent's code; see :func:`steer`.
    metric
        Logits [batch, pos, d_vocab] -> [batch]; the effect is its change from the unedited run. None: the KL
        divergence of the next-token distribution from the unedited one, in nats, mean over tokens.
    position
        Where to steer; everywhere by default.
    n_random, among
        How many other latents, drawn from ``among`` (those that are alive, say; all by default). Each is brought to
        the length of this one, so that the same amount moves the activation as far.

    Returns
    -------
    EffectCurve
        Standard error over texts. Cost: 1 + amounts x (1 + n_random) forward passes.

    Raises
    ------
    InputError
        There is no such latent, or too few others.
    ModelError
        The model predicts no next token, and there is no metric.
    """
    tokens = tokens_of(model, texts)
    (latent,) = _checked(coder, latent)
    if metric is None:
        require_predictions(model, tokens)
    others = [j for j in (range(coder.d_sae) if among is None else _checked(coder, among)) if j != latent]
    if n_random < 1 or len(others) < n_random:
        raise InputError(f"{n_random} random latents were asked for; there are {len(others)} to draw from")
    picked = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:n_random]
    direction = coder.W_dec.detach()[latent]
    rivals = coder.W_dec.detach()[[others[int(i)] for i in picked]]
    length = rivals.norm(dim=1, keepdim=True)
    if not bool((length > 0).all()) or not float(direction.norm()) > 0:
        raise InputError("a latent whose direction has length 0 cannot be steered along")
    directions = torch.cat([direction[None], rivals / length * direction.norm()])
    clean = model.logits(tokens)
    effect = _divergence(clean, tokens.mask) if metric is None else _change(clean, metric)
    found = np.stack(
        [
            [effect(model.logits(tokens, edits=[add(site, v, scale=a, position=position)])) for a in amounts]
            for v in directions
        ]
    )  # [direction, amount, text]
    means = found.mean(-1)
    spread = found[0].std(-1, ddof=1) / found.shape[-1] ** 0.5 if found.shape[-1] > 1 else None
    beaten = (np.abs(means[1:]) >= np.abs(means[0])).sum(0)
    return EffectCurve(
        name=f"effect of latent {latent}",
        value=means[0],
        stderr=spread,
        n=found.shape[-1],
        chance=means[1:].mean(0),
        axes=("amount",),
        ticks=(tuple(f"{a:g}" for a in amounts),),
        convention="KL from the unedited prediction, nats a token"
        if metric is None
        else "change of the metric",
        amounts=np.asarray(amounts, dtype=float),
        random=means[1:],
        rank=(1 + beaten) / (1 + n_random),
        provenance={"site": str(site), "latent": latent, "n_random": n_random, "seed": seed},
    )


def _divergence(clean: Tensor, mask: Tensor) -> Callable[[Tensor], np.ndarray]:
    base = clean.double().log_softmax(-1)
    real = mask.to(base.device)

    def effect(logits: Tensor) -> np.ndarray:
        by_token = (base.exp() * (base - logits.double().log_softmax(-1))).sum(-1)
        return (torch.where(real, by_token, 0.0).sum(1) / real.sum(1)).cpu().numpy()

    return effect


def _change(clean: Tensor, metric: Callable[[Tensor], Tensor]) -> Callable[[Tensor], np.ndarray]:
    base = metric(clean).double().cpu()
    if base.ndim != 1:
        raise InputError(f"a metric gives one number a text; this one gave {list(base.shape)}")

    def effect(logits: Tensor) -> np.ndarray:
        return (metric(logits).double().cpu() - base).numpy()

    return effect
