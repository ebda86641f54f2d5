"""Latents tried out for the page: steered along, ablated, and the same with random latents of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.sites import Site
from interp.tokens import Tokens
from sae.codes import Codes
from sae.steering import ablate, effect_curve, steer

__all__ = ["CausalCard", "causal_cards"]

TIMES = (-1.0, -0.5, 0.5, 1.0, 2.0)
"""How far to steer, in units of the latent's largest code."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CausalCard:
    """What happened."""

    amounts: np.ndarray
    effect: np.ndarray
    """[amount] KL from the unedited prediction, nats a token."""
    low: np.ndarray
    """[amount] 5 % quantile of the random latents."""
    high: np.ndarray
    """[amount] 95 % quantile."""
    up: tuple[tuple[int, float], ...]
    """Tokens whose log-probability rises most at +1, mean over all tokens."""
    down: tuple[tuple[int, float], ...]
    ablated: float
    """KL that ablating it makes at its own peaks, nats."""
    ablated_random: float
    """The same for other latents that fire at those tokens."""
    plain: str
    """A prompt continued as it is."""
    steered: str
    """The same prompt continued under steering at +1."""


def causal_cards(
    coder: Any,
    model: Any,
    codes: Codes,
    site: str | Site,
    latents: Sequence[int],
    *,
    n_texts: int = 16,
    seed: int = 0,
) -> Mapping[int, CausalCard]:
    """A card for each of ``latents``.

    Raises
    ------
    InputError
        A latent that never fires on these texts: there is no code to measure by.
    """
    alive = np.flatnonzero(codes.counts > 0)
    made = {}
    for latent in latents:
        if not codes.counts[codes.check(latent)]:
            raise InputError(
                f"latent {latent} fires on none of {codes.n} tokens: bring more texts, or leave it out"
            )
        made[int(latent)] = _card(coder, model, codes, site, int(latent), alive, n_texts, seed)
    return made


def _card(
    coder: Any, model: Any, codes: Codes, site: Any, latent: int, alive: np.ndarray, n_texts: int, seed: int
) -> CausalCard:
    corpus = codes.corpus
    texts = corpus[:n_texts]
    largest = float(codes.strongest[latent])
    curve = effect_curve(
        coder, model, texts, site, latent, amounts=[t * largest for t in TIMES],
        n_random=min(10, len(alive) - 1), among=[int(i) for i in alive], seed=seed,
    )  # fmt: skip
    forward = steer(coder, site, latent, amount=largest)
    real = texts.mask[..., None].to(model.device)
    moved = (_logp(model, texts, [forward]) - _logp(model, texts, [])).mul(real).sum((0, 1)) / real.sum()
    rises, falls = moved.topk(8), (-moved).topk(8)
    own, other = _ablations(coder, model, codes, site, latent)
    plain, steered = _continued(model, texts, forward)
    low, high = np.quantile(curve.random, (0.05, 0.95), axis=0)
    return CausalCard(
        amounts=curve.amounts,
        effect=np.asarray(curve.value),
        low=low,
        high=high,
        up=tuple((int(i), float(v)) for i, v in zip(rises.indices, rises.values, strict=True)),
        down=tuple((int(i), -float(v)) for i, v in zip(falls.indices, falls.values, strict=True)),
        ablated=own,
        ablated_random=other,
        plain=plain,
        steered=steered,
    )


def _logp(model: Any, tokens: Tokens, edits: list[Any]) -> Tensor:
    return model.logits(tokens, edits=edits).double().log_softmax(-1)


def _ablations(coder: Any, model: Any, codes: Codes, site: Any, latent: int) -> tuple[float, float]:
    """KL at the latent's strongest tokens when it is ablated, and when the next strongest latent there is."""
    rows, values = codes.of(latent)
    best = rows[np.argsort(-np.abs(values))[:16]]
    text, position = codes.where[best].T
    part = codes.corpus.select(text.tolist())
    at = torch.arange(len(text)), torch.as_tensor(position).long()
    base = _logp(model, part, [])[at]
    kl = []
    for chosen in (latent, _rival(codes, best, latent)):
        if chosen is None:
            kl.append(float("nan"))
            continue
        logp = _logp(model, part, [ablate(coder, site, chosen)])[at]
        kl.append(float((base.exp() * (base - logp)).sum(-1).mean()))
    return kl[0], kl[1]


def _rival(codes: Codes, rows: np.ndarray, latent: int) -> int | None:
    """The other latent with the largest codes at ``rows``."""
    total = np.asarray(np.abs(codes.matrix.tocsr()[rows]).sum(0)).ravel()
    total[latent] = 0
    return int(total.argmax()) if total.max() > 0 else None


def _continued(model: Any, texts: Tokens, edit: Any) -> tuple[str, str]:
    """The first text's beginning, continued without and with the edit."""
    width = min(8, texts.ids.shape[1])
    room = 16 if model.n_ctx is None else min(16, model.n_ctx - width)
    if room < 1 or not bool(texts.mask[0, :width].all()):
        return "", ""
    prompt = Tokens.full(texts.ids[:1, :width], show=texts.show)
    made = []
    for edits in ([], [edit]):
        out = model.generate(prompt, max_new_tokens=room, edits=edits, stop_at_eos=False)
        pieces = [texts.show(int(i)) for i in out.ids[0]]
        spaced = any(p.startswith(" ") for p in pieces)
        made.append(("" if spaced else " ").join(pieces))
    return made[0], made[1]
