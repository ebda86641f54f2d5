"""The circuit station: which heads (or modules) carry the context to the prediction, found by patching each of them.

No task is given, so one is made that every model has. Clean: prompts from the study. Corrupted: the same prompts with
everything before the last token taken from another prompt. What is asked: how much of the clean run's log-probability
of its own favourite next token returns when one part of the clean run is put into the corrupted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.patching import PatchResult, patch_sweep
from interp.errors import CheckError, InputError
from interp.sites import Site
from interp.stations import Estimate, Plate, Section, Study, Table
from interp.tokens import Tokens

__all__ = ["STATION", "CircuitStation", "Pairs"]

MAX_LENGTH = 24
MAX_PAIRS = 32
LEAST = 6
BUDGET = 4e12
"""Multiplications that the sweep may cost: some minutes on one slow core."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """The made-up task."""

    clean: Tokens
    corrupted: Tokens
    favourite: Tensor
    """[example] the clean run's likeliest output."""
    per_position: bool
    """Whether the model answers at every position (else once an input)."""

    def metric(self, logits: Tensor) -> Tensor:
        """Log-probability (nats) of the favourite at the last position, one an example."""
        return _final(logits).double().log_softmax(-1).gather(1, self.favourite.to(logits.device)[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class CircuitStation:
    """A map of head effects by patching, checked by a ladder over the residual stream."""

    name: str = "circuit"
    title: str = "Which parts carry the context"
    order: int = 40

    def applies(self, study: Study) -> str | None:
        """It needs parts to patch and a handful of different prompts of one length."""
        n_parts = _n_components(study.model)
        if n_parts < 2:
            return f"patching compares parts of a model; this one offers {n_parts}"
        length = _length(study.tokens)
        if length < 2:
            return "the inputs are one token long: there is no context to swap"
        n = int((study.tokens.lengths >= length).sum())
        return None if n >= LEAST else f"{n} prompts of {length} tokens are too few to pair up; at least {LEAST} are needed"

    def estimate(self, study: Study) -> Estimate:
        """Parts x prompts forward passes, twice for the control."""
        n_parts, n = _n_components(study.model), _n_pairs(study)
        length = _length(study.tokens)
        flops = 2 * _n_params(study.model) * length * 2 * n_parts * n
        return Estimate(forward_passes=2.0 * n_parts * n + 3 * n, seconds=1.0 + flops / 1e10,
                        memory_bytes=4 * 32 * length * ((study.model.d_vocab or 256) + 12 * (study.model.d_model or 256)))

    def run(self, study: Study) -> Section:
        """Make the pairs, sweep the parts, climb the ladder."""
        pairs = make_pairs(study)
        options = {"batch_size": 32, "seed": study.seed, "progress": study.progress}
        parts = part_sites(study.model)
        effects = patch_sweep(study.model, pairs.clean, pairs.corrupted, pairs.metric, sites=parts, control=True, **options)
        ladder = _ladder(study, pairs, options)
        return Section(
            name=self.name, title=self.title, summary=_summary(effects, pairs),
            plates=_plates(effects, ladder), tables=(_table(effects),),
            numbers=_numbers(effects, ladder, pairs), caveats=_caveats(pairs, effects),
        )


STATION = CircuitStation()


def part_sites(model: Any) -> tuple[Site, ...]:
    """What is patched: every head's output; without heads what each layer writes; without layers every module's output."""
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
    model, longest = study.model, _length(study.tokens)
    lengths = study.tokens.lengths.cpu()
    whole = torch.nonzero(lengths >= longest).flatten()
    whole = whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(study.seed))]
    ids = torch.stack([study.tokens.ids[row][study.tokens.mask[row]][:longest] for row in whole.tolist()])
    ids = ids[_first_of_each(ids)][: _n_pairs(study)]
    if len(ids) < LEAST:
        raise InputError(f"only {len(ids)} different prompts of {longest} tokens; at least {LEAST} are needed")
    tried = []
    for length in _lengths(longest, fixed=model.logits(ids[:1]).ndim == 2):
        pairs = _paired(model, ids[:, :length], study.tokens.show)
        ends = [pairs.metric(model.logits(tokens, batch_size=32)) for tokens in (pairs.clean, pairs.corrupted)]
        tried.append((float((ends[0] - ends[1]).mean()), pairs))
    return max(tried, key=lambda one: one[0])[1]


def _paired(model: Any, ids: Tensor, show: Any) -> Pairs:
    logits = model.logits(ids, batch_size=32)
    per_position = logits.ndim > 2
    other = ids.roll(1, dims=0)
    if per_position:
        # the last token stays, so that all that differs at the last position came there from the context
        other = torch.cat([other[:, :-1], ids[:, -1:]], dim=1)
    return Pairs(clean=Tokens.full(ids, show=show), corrupted=Tokens.full(other, show=show),
                 favourite=_final(logits).argmax(-1).cpu(), per_position=per_position)


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


def _length(tokens: Tokens) -> int:
    """The prompts' common length: what half of the texts reach, at most 24."""
    return int(min(MAX_LENGTH, tokens.lengths.double().median()))


def _n_components(model: Any) -> int:
    return sum(model.anatomy.blocks[site.layer].attn.n_heads if site.kind == "z" else 1 for site in part_sites(model))


def _n_params(model: Any) -> int:
    return int(model.describe()["n_params"])


def _n_pairs(study: Study) -> int:
    one = 4.0 * _n_params(study.model) * _length(study.tokens) * max(1, _n_components(study.model))
    return max(8, min(MAX_PAIRS, int(BUDGET / one), int((study.tokens.lengths >= _length(study.tokens)).sum())))


def _ladder(study: Study, pairs: Pairs, options: dict[str, Any]) -> PatchResult | None:
    """The residual stream at the last position, layer by layer; behind the last layer all of the gap must be back.

    Raises
    ------
    CheckError
        It is not: then the patching itself cannot be trusted.
    """
    steps = [s for s in study.model.sites if s.kind == "resid_post" or (s.kind == "resid_pre" and s.layer == 0)]
    if len(steps) < 2 or not pairs.per_position:
        return None
    ladder = patch_sweep(study.model, pairs.clean, pairs.corrupted, pairs.metric, sites=steps, position="last", **options)
    last = np.asarray(ladder.patched[-1])
    off = float(np.abs(last - ladder.clean).max())
    # the same operations in another batch: agreement to rounding, in nats
    if off > 1e-3 * max(1.0, float(np.abs(ladder.clean).max())):
        raise CheckError(f"patching all of {ladder.components[-1]} at the last position should give the clean answer back; it is off by {off:.3g} nats")
    return ladder


def _kind(effects: PatchResult) -> str:
    return "heads" if effects.sites[0].head is not None else "parts"


def _summary(effects: PatchResult, pairs: Pairs) -> str:
    value, gap = np.asarray(effects.value), effects.clean - effects.corrupted
    cost = f"{gap.mean():.2g} ± {1.96 * gap.std(ddof=1) / len(gap) ** 0.5:.1g} nats"
    task = f"({effects.n} prompts of {pairs.clean.ids.shape[1]} tokens)"
    if effects.reason is not None or effects.interval is None:
        return f"Swapping the context changes the log-probability of the model's own favourite by {cost} {task}: there is nothing to share out."
    top = int(value.argmax())
    low, high = effects.interval[top]
    found = (
        f"Swapping the context costs {cost} of the model's own favourite {task}; putting back {effects.components[top]} alone returns "
        f"{value[top]:.0%} of it ({low:.0%} to {high:.0%}), the most of {len(value)} {_kind(effects)}."
    )
    if effects.control is None:
        return found
    clear = int((effects.interval[:, 0] > effects.control).sum())
    return f"{found} {clear} of them lie above the same part from another prompt by their 95% interval, where chance gives about {0.025 * len(value):.0f}."


def _plates(effects: PatchResult, ladder: PatchResult | None) -> tuple[Plate, ...]:
    from circuits.plots import head_map, ladder_chart

    if _kind(effects) == "heads":
        matrix, layers, heads = effects.grid()
        figure = head_map(matrix, layers=layers, heads=heads)
    else:
        figure = effects.plot().update_layout(title=None)
    plates = []
    if effects.reason is None:
        plates.append(Plate(title=f"Effect of patching single {_kind(effects)}", figure=figure, caption=(
            f"{effects.convention}. {effects.n} prompts. 0: this part alone brings nothing back; 1: it brings back all of the gap. "
            "Effects need not add up to 1.")))
    if ladder is not None and ladder.reason is None:
        plates.append(Plate(title="Where the answer has arrived", figure=ladder_chart(ladder.ticks[0], np.asarray(ladder.value), ladder.interval), caption=(
            "The clean residual stream put into the corrupted run at the last position only, one site at a time. The first site holds the last token, "
            "which is the same in both runs; behind the last block all of the gap is back by construction, which is checked.")))
    return tuple(plates)


def _table(effects: PatchResult) -> Table:
    value = np.asarray(effects.value)
    order = np.argsort(-np.abs(np.nan_to_num(value)))[:15]
    rows = []
    for i in order.tolist():
        ends = (None, None) if effects.interval is None else tuple(_number(e) for e in effects.interval[i])
        rows.append((effects.components[i], _number(value[i]), *ends, None if effects.control is None else _number(effects.control[i])))
    return Table(title=f"Largest effects of single {_kind(effects)}", columns=("part", "effect", "low", "high", "control"), rows=tuple(rows),
                 caption="Share of the gap, 95% bootstrap interval over prompts; control: the same part from another prompt.")


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _numbers(effects: PatchResult, ladder: PatchResult | None, pairs: Pairs) -> dict[str, object]:
    def told(result: PatchResult) -> dict[str, object]:
        ends = None if result.interval is None else [[_number(e) for e in pair] for pair in result.interval]
        control = None if result.control is None else [_number(c) for c in result.control]
        return {"parts": list(result.components), "effect": [_number(v) for v in np.asarray(result.value)], "interval": ends, "level": result.level,
                "control": control, "n": result.n, "convention": result.convention, "reason": result.reason}

    gap = effects.clean - effects.corrupted
    return {
        "task": {"n": effects.n, "length": int(pairs.clean.ids.shape[1]), "last_token_kept": pairs.per_position,
                 "clean_nats": float(effects.clean.mean()), "corrupted_nats": float(effects.corrupted.mean()),
                 "gap_nats": float(gap.mean()), "gap_stderr": float(gap.std(ddof=1) / len(gap) ** 0.5)},
        "effects": told(effects), "residual_ladder": None if ladder is None else told(ladder),
    }


def _caveats(pairs: Pairs, effects: PatchResult) -> tuple[str, ...]:
    seam = ("The corrupted prompts are unnatural: a foreign context runs into the prompt's own last token."
            if pairs.per_position else "The corrupted input is another input altogether.")
    return (
        "No task was given. The metric, the log-probability of the model's own favourite, is generic: the map shows what carries context at large, "
        "and averages over whatever the prompts ask of the model.",
        seam,
        "The prompts were cut to the length, of a few, at which the swap costs most; other lengths may show other parts.",
        "Single parts: redundancy hides parts that could each do the job, and parts that only work together show nothing.",
        *([effects.reason] if effects.reason else []),
    )
