"""Contexts: a task that every model has, for when none is given.

Clean: prompts from the study. Corrupted: the same prompts with everything before the last token taken from another
prompt. What is asked: how much of the clean run's log-probability of its own favourite next token returns when one
part of the clean run is put into the corrupted one. A model of the embedded language has tasks of its own, so it is
asked for indirect objects instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError
from interp.sites import Site
from interp.study.stations import Study
from interp.tokens import Tokens

__all__ = ["Pairs", "common_length", "make_pairs", "n_components", "n_pairs", "n_params", "part_sites"]

MAX_LENGTH = 24
MAX_PAIRS = 32
LEAST = 6
BUDGET = 4e12
"""Multiplications that the sweep may cost: some minutes on one slow core."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """The task: made up, or one of the model's own."""

    clean: Tokens
    corrupted: Tokens
    favourite: Tensor
    """[example] the output that is asked for: the clean run's likeliest, or the right answer of ``task``."""
    per_position: bool
    """Whether the model answers at every position (else once an input)."""
    task: str | None = None
    """What is asked, where the task is not made up."""

    def metric(self, logits: Tensor) -> Tensor:
        """Log-probability (nats) of the favourite at the last position, one an example."""
        return (
            _final(logits).double().log_softmax(-1).gather(1, self.favourite.to(logits.device)[:, None])[:, 0]
        )


def part_sites(model: Any) -> tuple[Site, ...]:
    """What is patched: every head's output; without heads what each layer writes; else every module's output."""
    for kinds in (("z",), ("mixer_out",), ("attn_out", "mlp_out")):
        found = tuple(site for site in model.sites if site.kind in kinds and site not in model.inert)
        if found:
            return found
    return tuple(site for site in model.sites if site.path is not None and site not in model.inert)


def make_pairs(study: Study) -> Pairs:
    """Prompts of one length and their corrupted twins; the length, of a few, at which the swap matters most.

    Raises
    ------
    InputError
        Too few prompts that differ before their last token.
    """
    own = _own_task(study)
    if own is not None:
        return own
    model, longest = study.model, common_length(study.tokens)
    lengths = study.tokens.lengths.cpu()
    whole = torch.nonzero(lengths >= longest).flatten()
    whole = whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(study.seed))]
    ids = torch.stack([study.tokens.ids[row][study.tokens.mask[row]][:longest] for row in whole.tolist()])
    ids = ids[_first_of_each(ids)][: n_pairs(study)]
    if len(ids) < LEAST:
        raise InputError(
            f"only {len(ids)} different prompts of {longest} tokens; at least {LEAST} are needed"
        )
    tried = []
    for length in _lengths(longest, fixed=model.logits(ids[:1]).ndim == 2):
        pairs = _paired(model, ids[:, :length], study.tokens.show)
        ends = [
            pairs.metric(model.logits(tokens, batch_size=32)) for tokens in (pairs.clean, pairs.corrupted)
        ]
        tried.append((float((ends[0] - ends[1]).mean()), pairs))
    return max(tried, key=lambda one: one[0])[1]


def _own_task(study: Study) -> Pairs | None:
    """Indirect objects with held-out names and templates, if the model speaks the embedded language."""
    from interp.tasks.language_pairs import speaks
    from interp.tasks.loading import load, words_of

    if getattr(study.model, "tokenizer", None) is None or not study.model.causal:
        return None
    words = words_of(study.model, None, None, required=False)
    if words is None or not speaks(words):
        return None
    task = load("ioi", model=study.model, split="heldout", n=256, seed=study.seed, source="language")
    lengths = task.clean.lengths
    common = int(lengths.mode().values)
    rows = torch.nonzero(lengths == common).flatten()[:MAX_PAIRS]
    chosen = task.select(rows)
    return Pairs(
        clean=Tokens.full(chosen.clean.ids[:, :common], show=chosen.clean.show),
        corrupted=Tokens.full(chosen.corrupted.ids[:, :common], show=chosen.corrupted.show),
        favourite=chosen.answers[:, 0].long(),
        per_position=True,
        task="the indirect object, with names and templates held out of training",
    )


def _paired(model: Any, ids: Tensor, show: Any) -> Pairs:
    logits = model.logits(ids, batch_size=32)
    per_position = logits.ndim > 2
    other = ids.roll(1, dims=0)
    if per_position:
        # the last token stays, so that all that differs at the last position came there from the context
        other = torch.cat([other[:, :-1], ids[:, -1:]], dim=1)
    return Pairs(
        clean=Tokens.full(ids, show=show),
        corrupted=Tokens.full(other, show=show),
        favourite=_final(logits).argmax(-1).cpu(),
        per_position=per_position,
    )


def _lengths(longest: int, *, fixed: bool) -> list[int]:
    """Prompt lengths to try: up to six, evenly spread; inputs that are read as a whole keep their length."""
    if fixed or longest <= 3:
        return [longest]
    return sorted({max(3, round(longest * i / 6)) for i in range(1, 7)})


def _final(logits: Tensor) -> Tensor:
    """Logits [example, class] at the last position."""
    return logits if logits.ndim == 2 else logits.flatten(1, -2)[:, -1]


def _first_of_each(ids: Tensor) -> Tensor:
    seen, keep = set(), []
    for i, row in enumerate(ids[:, :-1].tolist()):
        if tuple(row) not in seen:
            seen.add(tuple(row))
            keep.append(i)
    return torch.tensor(keep, dtype=torch.long)


def common_length(tokens: Tokens) -> int:
    """The prompts' common length: what half of the texts reach, at most 24."""
    return int(min(MAX_LENGTH, tokens.lengths.double().median()))


def n_components(model: Any) -> int:
    """How many parts will be patched."""
    return sum(model.sites.n_heads(site) or 1 for site in part_sites(model))


def n_params(model: Any) -> int:
    """Parameters of the model."""
    return int(model.describe()["n_params"])


def n_pairs(study: Study) -> int:
    """How many prompts the budget allows, 8 to 32."""
    one = 4.0 * n_params(study.model) * common_length(study.tokens) * max(1, n_components(study.model))
    return max(
        8, min(MAX_PAIRS, int(BUDGET / one), int((study.tokens.lengths >= common_length(study.tokens)).sum()))
    )
