"""Contexts: a task that every model has, for when none is given.

Clean: prompts from the study. Corrupted: the same prompts with everything before the last token taken from another
prompt. What is asked: how much of the clean run's log-probability of its own favourite next token returns when one
part of the clean run is put into the corrupted one. A study that knows what its model was made to do asks that instead.
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
    answers: Tensor
    """[example, answer] what is asked for, -1 where a row has fewer: the clean run's likeliest, or the task's."""
    per_position: bool
    """Whether the model answers at every position (else once an input)."""
    task: Any = None
    """The :class:`interp.tasks.Task` they come from; None where they are made up."""

    def metric(self, logits: Tensor) -> Tensor:
        """Log-probability (nats) that one of the answers comes last, one an example."""
        answers = self.answers.to(logits.device)
        each = _final(logits).double().log_softmax(-1).gather(1, answers.clamp(min=0))
        return each.masked_fill(answers < 0, -torch.inf).logsumexp(-1)

    @property
    def same_end(self) -> bool:
        """Whether clean and corrupted prompts end in the same token."""
        return torch.equal(self.clean.ids[:, -1], self.corrupted.ids[:, -1])

    @property
    def asked(self) -> str:
        """What the answers are, for a sentence."""
        return "the model's own favourite" if self.task is None else f"the right answer ({self.task.name})"


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
    if study.task is not None:
        return _of_task(study.task)
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


def _of_task(task: Any) -> Pairs:
    """The prompts of the task's commonest length, as many as are used at most."""
    lengths = task.clean.lengths
    common = int(lengths.mode().values)
    chosen = task.select(torch.nonzero(lengths == common).flatten()[:MAX_PAIRS])
    clean, corrupted = (
        Tokens.full(tokens.ids[tokens.mask].view(-1, common), show=tokens.show)
        for tokens in (chosen.clean, chosen.corrupted)
    )
    return Pairs(
        clean=clean, corrupted=corrupted, answers=chosen.answers.long(), per_position=True, task=task
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
        answers=_final(logits).argmax(-1, keepdim=True).cpu(),
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
