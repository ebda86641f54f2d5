"""Generation under edits: a prompt pass, then one short pass a token with the key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.capture import edit_visits
from interp.edits import Edit
from interp.errors import InputError, ModelError
from interp.frames import Frame, Inputs
from interp.models.ids import check_ids
from interp.models.inputs import as_tokens
from interp.models.network import Network
from interp.tokens import Tokens

__all__ = ["Cache", "Sampling", "generate"]


@dataclass(slots=True)
class Cache:
    """What a decoder remembers between passes: the mask so far, and the library's own cache object."""

    mask: Tensor
    held: dict[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """The keyword arguments that hand the memory back to the model."""
        return self.held

    def keep(self, out: Any) -> None:
        """Take the memory out of a model's output."""
        for name in ("past_key_values", "cache_params"):
            memory = getattr(out, name, None)
            if memory is not None:
                self.held = {name: memory}
                return
        raise ModelError(f"{type(out).__name__} returned no cache; generate with use_cache=False")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen: greedy at temperature 0, else sampled from the ``top_k`` likeliest."""

    temperature: float = 0.0
    top_k: int | None = None
    seed: int = 0
    stop_at_eos: bool = True

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"temperature must be at least 0; got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1; got {self.top_k}")

    def choose(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """The next token of each row from logits [batch, d_vocab]."""
        if self.temperature == 0:
            return logits.argmax(-1)
        scaled = logits.double().cpu() / self.temperature
        if self.top_k is not None and self.top_k < scaled.shape[-1]:
            bar = scaled.topk(self.top_k).values[:, -1:]
            scaled = scaled.masked_fill(scaled < bar, -torch.inf)
        return torch.multinomial(scaled.softmax(-1), 1, generator=generator)[:, 0].to(logits.device)


def generate(
    model: Network,
    tokens: Any,
    *,
    max_new_tokens: int,
    edits: Sequence[Edit],
    sampling: Sampling,
    use_cache: bool,
) -> Tokens:
    """See :meth:`interp.models.base.Model.generate`."""
    prompt = as_tokens(model, tokens)
    check_ids(model, prompt.ids)
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1; got {max_new_tokens}")
    if not bool(prompt.mask[:, -1].all()):
        raise InputError(
            "rows of different lengths must be padded on the left to be continued: "
            "model.tokens(..., padding_side='left')"
        )
    total = prompt.ids.shape[1] + max_new_tokens
    if model.n_ctx is not None and total > model.n_ctx:
        raise InputError(
            f"{prompt.ids.shape[1]} tokens and {max_new_tokens} new ones exceed the context of {model.n_ctx}"
        )
    if not model.causal:
        raise ModelError(f"{model.name} is an encoder: it does not generate")
    ids, mask = prompt.ids.to(model.device), prompt.mask.to(model.device)
    cache = Cache(mask) if use_cache and model.can_cache else None
    eos = getattr(model.tokenizer, "eos_token_id", None) if sampling.stop_at_eos else None
    done = torch.zeros(len(prompt), dtype=torch.bool, device=ids.device)
    generator = torch.Generator().manual_seed(sampling.seed)
    n_prompt = ids.shape[1]
    for _ in range(max_new_tokens):
        logits = _next_logits(model, ids, mask, cache, edits, n_prompt)
        chosen = sampling.choose(logits, generator)
        if eos is not None:
            chosen = torch.where(done, torch.full_like(chosen, eos), chosen)
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        mask = torch.cat([mask, ~done[:, None]], dim=1)
        if eos is not None:
            done = done | (chosen == eos)
            if bool(done.all()):
                break
    return Tokens(ids=ids, mask=mask, show=prompt.show)


def _next_logits(
    model: Network, ids: Tensor, mask: Tensor, cache: Cache | None, edits: Sequence[Edit], n_prompt: int
) -> Tensor:
    """Logits behind the last column [batch, d_vocab]; with a cache only the columns it has not seen are run."""
    seen = ids.shape[1] - 1 if cache is not None and cache.held else 0
    now, part = ids[:, seen:], mask[:, seen:]
    if cache is not None:
        cache.mask = mask
    padded = not bool(mask.all())
    inputs = Inputs((now,), mask if padded and cache is None else None, padded and not bool(mask[:, 0].all()))
    last = torch.full((ids.shape[0],), n_prompt - 1, device=ids.device)
    frame = Frame(
        batch=ids.shape[0],
        pos=now.shape[1],
        mask=part,
        last=last,
        row=0,
        rows=ids.shape[0],
        offset=seen,
        prompt=n_prompt,
    )
    with torch.no_grad():
        logits = model.run(inputs, frame, edit_visits(model, edits, frame), wanted=None, cache=cache)
    return logits[:, -1]
