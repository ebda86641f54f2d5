"""A coder inside its model: what it writes put where it reads, and how much of the model's prediction that leaves.

:func:`splice` is the edit that everything here and in ``steering.py`` is made of: encode what stands at a site, change
the codes, decode. :func:`loss_recovered` asks what a spliced coder costs beside taking the site away altogether.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.edits import Edit
from interp.errors import InputError, ModelError
from interp.frames import Frame, Where
from interp.metrics.rows import blocks_of, jackknife
from interp.models.inputs import as_tokens
from interp.results import Result
from interp.sites import ALIASES, Site
from interp.tokens import Tokens

__all__ = ["LossRecovered", "loss_recovered", "rows_at", "splice", "tokens_of"]

Codes = Callable[[Tensor], Tensor]


def tokens_of(model: Any, texts: Any) -> Tokens:
    """Texts (cut to the context), Tokens or ids as Tokens."""
    if not isinstance(texts, Tokens | Tensor):
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise InputError("there are no texts to read")
        if isinstance(texts[0], str):
            return model.tokens(texts, truncate=True)
    return as_tokens(model, texts)


def rows_at(value: Tensor, coder: Any, site: Site | str) -> Tensor:
    """What stands at a site, heads side by side, as rows that ``coder`` reads: [batch, pos, d_in]."""
    rows = value.flatten(2) if value.ndim > 3 else value
    if rows.shape[-1] != coder.d_in:
        raise InputError(
            f"this coder reads rows of width {coder.d_in}; {site} holds {list(value.shape)} (another site?)"
        )
    return rows


def written(coder: Any, codes: Tensor, rows: Tensor) -> Tensor:
    """``coder.decode``, which in a skip transcoder also reads the rows."""
    return coder.decode(codes, rows) if getattr(coder, "wiring", "sae") == "skip" else coder.decode(codes)


def splice(
    coder: Any,
    site: str | Site,
    *,
    target: str | Site | None = None,
    codes: Codes | None = None,
    keep_error: bool = False,
    skip_first: bool = False,
    position: Where | str = None,
    row: Where = None,
) -> Edit:
    """Put what ``coder`` makes of a site in its place.

    Parameters
    ----------
    coder
        Anything with ``encode``, ``decode`` and ``d_in``.
    site
        Where it reads.
    target
        Where a transcoder writes; the same place by default.
    codes
        Changes the codes [batch, pos, latent] before they are decoded.
    keep_error
        Add only the difference that ``codes`` makes to what stands there: the coder's own error stays in the model,
        and without ``codes`` nothing changes.
    skip_first
        Leave each row's first token alone, whose activations are often of another size altogether.

    Raises
    ------
    InputError
        While the model runs: the site is not as wide as the coder reads.
    """
    read, held = _resolved(site), {}

    def change(value: Tensor, at: Site, frame: Frame) -> Tensor:
        if at == read or target is None:
            rows = rows_at(value, coder, at)
            before = coder.encode(rows)
            after = before if codes is None else codes(before.clone())
            held["new"] = written(coder, after, rows)
            held["old"] = written(coder, before, rows) if keep_error else None
            if target is not None:
                return value
        new, old = held["new"], held["old"]
        if new.numel() != value.numel():
            raise InputError(
                f"this coder writes {list(new.shape)}; {at} holds {list(value.shape)} (another target?)"
            )
        new = (new.reshape(value.shape) if old is None else value + (new - old).reshape(value.shape)).to(
            value.dtype
        )
        return torch.where(first_tokens(value, frame), value, new) if skip_first else new

    sites = (site,) if target is None else (site, target)
    return Edit(sites=sites, change=change, name="splice", position=position, row=row)


def _resolved(site: str | Site) -> Site:
    return Site.parse(ALIASES.get(site, site) if isinstance(site, str) else site)


def first_tokens(value: Tensor, frame: Frame) -> Tensor:
    """Where each row's first real token stands, broadcastable to ``value``."""
    here = torch.arange(value.shape[1], device=value.device) + frame.offset
    start = (
        torch.zeros(1, dtype=torch.long)
        if frame.mask is None or frame.offset
        else frame.mask.long().argmax(1)
    )
    first = here == start.to(value.device)[:, None]
    return first.view(*first.shape, *[1] * (value.ndim - 2))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LossRecovered(Result):
    """``value``: share of the cross-entropy lost by mean ablation that the spliced coder gives back."""

    losses: Mapping[str, float]
    """Nats a token: ``ce_clean``, and for ``spliced``, ``mean`` and ``zero`` both ``ce_*`` and ``kl_*``, the latter
    from the clean distribution."""
    ce_against_zero: float
    """The same share against zero ablation."""
    kl: float
    """1 - KL(clean | spliced) / KL(clean | mean-ablated)."""
    kl_against_zero: float
    text_losses: Mapping[str, np.ndarray]
    """[text] sums of the same losses over each text's predicted tokens."""
    text_tokens: np.ndarray
    """[text] predicted tokens."""


def loss_recovered(
    coder: Any,
    model: Any,
    texts: Any,
    site: str | Site,
    *,
    target: str | Site | None = None,
    mean: Tensor | None = None,
    batch_size: int = 64,
    skip_first: bool = False,
) -> LossRecovered:
    """How much of the model's next-token prediction survives when ``coder`` stands in for a site.

    recovered = (L_ablated - L_spliced) / (L_ablated - L_clean), with L the cross-entropy of the next token or the KL
    divergence from the clean prediction (whose clean value is 0). A coder that gives back every row has 1; one that
    always writes 0 (the mean) has 0 against zero (mean) ablation. Neither end is clamped.

    Parameters
    ----------
    texts
        Texts, Tokens or ids that the coder was not trained on. Each real token but the first of a text is predicted.
    target
        Where a transcoder writes; ablations are made there.
    mean
        [d] what mean ablation puts there; by default the mean of these texts.
    skip_first
        Neither splice nor ablate at each text's first token.

    Returns
    -------
    LossRecovered
        Standard error: jackknife over blocks of texts. Cost: five forward passes.

    Raises
    ------
    ModelError
        The model predicts no next token (no unembedding, or not causal).
    InputError
        The coder is of another width, or ablation costs nothing, so that there is nothing to recover.
    """
    tokens = tokens_of(model, texts)
    place = site if target is None else target
    require_predictions(model, tokens)
    if mean is None:
        mean = _mean_at(model, tokens, place, batch_size)

    def fixed(vector: Tensor | float) -> Edit:
        def change(value: Tensor, at: Site, frame: Frame) -> Tensor:
            new = torch.as_tensor(vector, dtype=value.dtype, device=value.device)
            new = (new.view(value.shape[2:]) if new.ndim else new).expand(value.shape)
            return torch.where(first_tokens(value, frame), value, new) if skip_first else new

        return Edit(sites=(place,), change=change, name="ablate", copies=True)

    edits = {
        "spliced": splice(coder, site, target=target, skip_first=skip_first),
        "mean": fixed(mean),
        "zero": fixed(0.0),
    }
    parts = [_losses(model, part, edits) for part in tokens.batches(batch_size)]
    sums = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _summed(sums, tokens, {"site": str(site), "target": str(place), "skip_first": skip_first})


def require_predictions(model: Any, tokens: Tokens) -> None:
    """Raise ModelError unless the model's output is a distribution over its own tokens."""
    if model.d_vocab is None or not model.causal:
        raise ModelError(
            f"{model.name} predicts no next token ({'not causal' if model.d_vocab else 'its input is not tokens'}): "
            "the loss through the model needs a language model; evaluate on rows instead"
        )
    out = model.logits(tokens[:1])
    if out.ndim != 3 or out.shape[-1] < model.d_vocab:
        raise ModelError(
            f"{model.name} puts out {list(out.shape)}, no scores over its {model.d_vocab} tokens: "
            "it has no unembedding; evaluate on rows instead"
        )


def _mean_at(model: Any, tokens: Tokens, site: Any, batch_size: int) -> Tensor:
    total, n = torch.zeros(()), 0
    for part in tokens.batches(batch_size):
        rows = model.capture(part, site).rows(site).flatten(1).double()
        total, n = total + rows.sum(0), n + len(rows)
    return total / n


def _losses(model: Any, tokens: Tokens, edits: Mapping[str, Edit]) -> dict[str, np.ndarray]:
    """[text] sums of every loss over the predicted tokens of one batch."""
    ids, real = tokens.ids, tokens.mask
    predicted = (real[:, 1:] & real[:, :-1]).double()

    def scores(edit: list[Edit]) -> Tensor:
        return model.logits(tokens, edits=edit)[:, :-1].double().cpu().log_softmax(-1)

    def entropy(logp: Tensor) -> Tensor:
        chosen = logp.gather(-1, ids[:, 1:, None].cpu())[..., 0]
        return -(torch.where(predicted > 0, chosen, 0.0)).sum(1)

    clean = scores([])
    found = {"tokens": predicted.sum(1), "ce_clean": entropy(clean)}
    for name, edit in edits.items():
        logp = scores([edit])
        divergence = (clean.exp() * (clean - logp)).sum(-1)
        found[f"ce_{name}"] = entropy(logp)
        found[f"kl_{name}"] = torch.where(predicted > 0, divergence, 0.0).sum(1)
    return {name: value.numpy() for name, value in found.items()}


def _summed(sums: dict[str, np.ndarray], tokens: Tokens, provenance: dict[str, Any]) -> LossRecovered:
    count = sums.pop("tokens")
    if count.sum() == 0:
        raise InputError("no text has two tokens: there is no next token to predict")

    def recovered(kept: np.ndarray, loss: str, ablation: str) -> float:
        clean = sums["ce_clean"][kept].sum() if loss == "ce" else 0.0
        ablated, spliced = (sums[f"{loss}_{name}"][kept].sum() for name in (ablation, "spliced"))
        return float((ablated - spliced) / (ablated - clean))

    everything = np.ones(len(count), dtype=bool)
    means = {name: float(value.sum() / count.sum()) for name, value in sums.items()}
    for ablation in ("mean", "zero"):
        if not means[f"kl_{ablation}"] > 0:
            raise InputError(
                f"{ablation} ablation at {provenance['target']} changes no prediction: there is nothing to recover"
            )
    blocks = [block.numpy() for block in blocks_of(len(count), 32)]
    left_out = [recovered(~np.isin(np.arange(len(count)), block), "ce", "mean") for block in blocks]
    few = "one text has no spread over texts" if len(blocks) < 2 else None
    return LossRecovered(
        name="CE recovered",
        value=recovered(everything, "ce", "mean"),
        stderr=None if few else float(jackknife(torch.tensor(left_out, dtype=torch.float64))),
        n=int(count.sum()),
        convention="(ablated - spliced) / (ablated - clean), next-token cross-entropy, mean ablation",
        chance=0.0,
        losses=means,
        ce_against_zero=recovered(everything, "ce", "zero"),
        kl=recovered(everything, "kl", "mean"),
        kl_against_zero=recovered(everything, "kl", "zero"),
        text_losses=sums,
        text_tokens=count,
        provenance=provenance | {"texts": len(tokens)} | ({"no_stderr": few} if few else {}),
    )
