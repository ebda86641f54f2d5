"""Learned prompt: transplant one hidden state behind a trained soft prompt and let the model itself say what follows.

References
----------
Pal et al. 2023, "Future lens", section 3.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.edits import Edit, replace
from interp.errors import InputError
from interp.lenses.readout import Readout
from interp.models.inputs import as_tokens
from interp.results import Result
from interp.tokens import Tokens

__all__ = ["future_prompt"]


def future_prompt(
    model: Any,
    tokens: Any,
    site: Any,
    *,
    ahead: int = 1,
    n_prompt: int = 4,
    steps: int = 100,
    batch_size: int = 32,
    lr: float = 1e-2,
    held_out: float = 0.25,
    seed: int = 0,
) -> Result:
    """Precision at 1 of the model's own token ``ahead`` later, read by a learned prompt from the stream at one site.

    A prompt of ``n_prompt`` trained embeddings is run; at its last position the stream at ``site`` is replaced by the
    hidden state in question, and the logits there are the prediction. The network's later layers do the reading.

    Parameters
    ----------
    site
        A stream site, such as ``"blocks.3.hook_resid_post"``.
    n_prompt, steps, batch_size, lr, seed
        Length of the prompt, and its training (Adam, cross-entropy against the model's top token).

    Returns
    -------
    Result
        Error over held-out states; ``.chance``: the same trained prompt with states of other tokens put in.

    Notes
    -----
    Cost: a forward and a backward pass of ``n_prompt`` tokens for each state and step.
    """
    given, _ = as_tokens(model, tokens), Readout.of(model)
    (place,) = model.find(site)
    if n_prompt < 2 or ahead < 0 or given.ids.shape[1] <= ahead:
        raise InputError(
            f"n_prompt = {n_prompt} (at least 2), ahead = {ahead} in {given.ids.shape[1]} tokens"
        )
    states, answers, text = _states(model, given, place, ahead)
    generator = torch.Generator().manual_seed(seed)
    test_texts = torch.randperm(len(given), generator=generator)[: max(1, round(held_out * len(given)))]
    test = torch.isin(text, test_texts)
    fit = torch.nonzero(~test).flatten()
    if len(fit) == 0 or not bool(test.any()):
        raise InputError("no states on both sides of the split; give more sequences")
    prompt = _start(model, n_prompt, generator)
    first, second = torch.zeros_like(prompt), torch.zeros_like(prompt)
    for step in range(1, steps + 1):
        chosen = fit[torch.randint(len(fit), (batch_size,), generator=generator)]
        goal = answers[chosen]

        def score(logits: Tensor, goal: Tensor = goal) -> Tensor:
            return logits[:, -1].log_softmax(-1).gather(-1, goal[:, None])[:, 0]

        ids = torch.zeros(len(chosen), n_prompt, dtype=torch.long)
        _, grads = model.gradients(
            Tokens.full(ids), score, "hook_embed", edits=_edits(prompt, place, states[chosen])
        )
        gradient = -grads["hook_embed"].mean(0)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient.square()
        prompt = prompt - lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    held = torch.nonzero(test).flatten()
    other = held[torch.randperm(len(held), generator=generator)]
    hits = [_said(model, prompt, place, states[rows], n_prompt) == answers[held] for rows in (held, other)]
    hit = hits[0].double()
    return Result(
        name=f"future lens by prompt, {ahead} ahead", value=float(hit.mean()), n=len(held),
        stderr=float(hit.std(correction=1) / len(hit) ** 0.5) if len(hit) > 1 else None,
        chance=float(hits[1].double().mean()),
        convention=f"precision@1 at {place} through {n_prompt} learned embeddings; chance: other tokens' states",
        provenance={"steps": steps, "lr": lr, "seed": seed, "model": model.name, "site": str(place)},
    )  # fmt: skip


def _states(model: Any, given: Tokens, place: Any, ahead: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [state, d], the model's top token ``ahead`` later, and the text of each."""
    acts = model.capture(given, place, batch_size=16)
    best = model.logits(given, batch_size=16).argmax(-1)
    end = given.ids.shape[1] - ahead
    pair = (given.mask[:, :end] & given.mask[:, ahead:]).to(best.device)
    return acts[place][:, :end][pair], best[:, ahead:][pair], torch.nonzero(pair)[:, 0].cpu()


def _start(model: Any, n_prompt: int, generator: torch.Generator) -> Tensor:
    ids = torch.randint(model.d_vocab, (1, n_prompt), generator=generator)
    return model.capture(Tokens.full(ids), "hook_embed")["hook_embed"][0].clone()


def _edits(prompt: Tensor, place: Any, states: Tensor) -> list[Edit]:
    return [
        replace("hook_embed", prompt.expand(len(states), -1, -1)),
        replace(place, states[:, None].expand(-1, len(prompt), -1), position=len(prompt) - 1),
    ]


def _said(model: Any, prompt: Tensor, place: Any, states: Tensor, n_prompt: int, chunk: int = 256) -> Tensor:
    out = []
    for part in states.split(chunk):
        ids = torch.zeros(len(part), n_prompt, dtype=torch.long)
        logits = model.logits(Tokens.full(ids), edits=_edits(prompt, place, part))
        out.append(logits[:, -1].argmax(-1))
    return torch.cat(out)
