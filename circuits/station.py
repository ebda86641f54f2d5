"""The circuit station: which heads (or modules) carry the context to the prediction, found by patching each of them.

Read next: ``contexts.py`` for the task that is asked of a model for which none was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.contexts import (
    LEAST,
    Pairs,
    common_length,
    make_pairs,
    n_components,
    n_pairs,
    part_sites,
)
from circuits.effects import PatchResult
from circuits.full_form import in_full
from circuits.full_form import n_passes as passes_in_full
from circuits.group_form import group_of, with_algorithm
from circuits.patching import patch_sweep
from interp.errors import CheckError
from interp.study.findings import Finding
from interp.study.stations import Estimate, Plate, Section, Study, Table

__all__ = ["STATION", "CircuitStation"]


@dataclass(frozen=True, slots=True)
class CircuitStation:
    """A map of head effects by patching, checked by a ladder over the residual stream."""

    name: str = "circuit"
    title: str = "Which parts carry the context"
    order: int = 40

    def applies(self, study: Study) -> str | None:
        """It needs parts to patch and a handful of different prompts of one length."""
        n_parts = n_components(study.model)
        if n_parts < 2:
            return f"patching compares parts of a model; this one offers {n_parts}"
        length = common_length(study.tokens)
        if length < 2:
            return "the inputs are one token long: there is no context to swap"
        n = int((study.tokens.lengths >= length).sum())
        if n < LEAST:
            return f"{n} prompts of {length} tokens are too few to pair up; at least {LEAST} are needed"
        return None

    def estimate(self, study: Study) -> Estimate:
        """Parts x prompts forward passes, twice for the control."""
        n_parts, n = n_components(study.model), n_pairs(study)
        length = common_length(study.tokens)
        share = length / max(1, int(study.tokens.ids.shape[1]))  # of one of the study's sequences
        passes = share * (2.0 * n_parts * n + 3 * n)
        if study.effort.full and not group_of(study):
            passes += passes_in_full(study)
        return Estimate(
            forward_passes=passes,
            seconds=0.5 + (2.0 if group_of(study) else 0.0),
            memory_bytes=4 * 32 * length * ((study.model.d_vocab or 256) + 12 * (study.model.d_model or 256)),
        )

    def run(self, study: Study) -> Section:
        """Make the pairs, sweep the parts, climb the ladder."""
        pairs = make_pairs(study)
        options = {"batch_size": 32, "seed": study.seed, "progress": study.progress}
        parts = part_sites(study.model)
        effects = patch_sweep(
            study.model, pairs.clean, pairs.corrupted, pairs.metric, sites=parts, control=True, **options
        )
        ladder = _ladder(study, pairs, options)
        costs = _costs(effects)
        section = Section(
            name=self.name,
            title=self.title,
            summary=_summary(effects, pairs),
            plates=_plates(effects, ladder, pairs) if costs else (),
            tables=(_table(effects),) if costs else (),
            numbers=_numbers(effects, ladder, pairs),
            caveats=_caveats(pairs, effects, causal=study.model.causal),
            findings=_findings(effects) if costs else (),
        )
        if group_of(study):
            return with_algorithm(section, study)
        return in_full(section, study) if study.effort.full else section


STATION = CircuitStation()


def _ladder(study: Study, pairs: Pairs, options: dict[str, Any]) -> PatchResult | None:
    """The residual stream at the last position, layer by layer; behind the last layer all of the gap must be back.

    Raises
    ------
    CheckError
        It is not: then the patching itself cannot be trusted.
    """
    steps = [
        s for s in study.model.sites if s.kind == "resid_post" or (s.kind == "resid_pre" and s.layer == 0)
    ]
    if len(steps) < 2 or not pairs.per_position:
        return None
    ladder = patch_sweep(
        study.model, pairs.clean, pairs.corrupted, pairs.metric, sites=steps, position="last", **options
    )
    last = np.asarray(ladder.patched[-1])
    off = float(np.abs(last - ladder.clean).max())
    # the same operations in another batch: agreement to rounding, in nats
    if off > 1e-3 * max(1.0, float(np.abs(ladder.clean).max())):
        raise CheckError(
            f"patching all of {ladder.components[-1]} at the last position should give the clean answer back; "
            f"it is off by {off:.3g} nats"
        )
    return ladder


def _kind(effects: PatchResult) -> str:
    return "heads" if effects.sites[0].head is not None else "parts"


def _gap(effects: PatchResult) -> tuple[float, float]:
    """The mean cost of the swap in nats, and the half width of its 95% interval over prompts."""
    gap = effects.clean - effects.corrupted
    return float(gap.mean()), float(1.96 * gap.std(ddof=1) / len(gap) ** 0.5)


def _costs(effects: PatchResult) -> bool:
    """Whether the swap costs anything that can be told from 0; else every share of it is noise over noise."""
    mean, half = _gap(effects)
    rounding = 1e-5 * max(1.0, float(np.abs(effects.clean).max()))  # of float32 logits, in nats
    return effects.reason is None and effects.interval is not None and mean - half > 0 and mean > rounding


def _summary(effects: PatchResult, pairs: Pairs) -> str:
    value, (mean, half) = np.asarray(effects.value), _gap(effects)
    cost = f"{mean:.2g} ± {half:.1g} nats"
    task = f"({effects.n} prompts of {pairs.clean.ids.shape[1]} tokens)"
    asked = pairs.asked
    if not _costs(effects) or effects.interval is None:
        return (
            f"Swapping the context makes no measurable difference to the log-probability of {asked}: it "
            f"costs {cost} {task}, so there is nothing to share out."
        )
    top = int(value.argmax())
    low, high = effects.interval[top]
    found = f"Swapping the context costs {cost} of {asked} {task}; "
    if low <= 0:
        found += (
            f"none of {len(value)} {_kind(effects)}, put back alone, returns a share that can be told from 0."
        )
    else:
        found += (
            f"putting back {effects.components[top]} alone returns {value[top]:.0%} of it "
            f"({low:.0%} to {high:.0%}), the most of {len(value)} {_kind(effects)}."
        )
    if effects.control is None:
        return found
    clear = int((effects.interval[:, 0] > effects.control).sum())
    return (
        f"{found} {clear} of them lie above the same part from another prompt by their 95% interval, "
        f"where chance gives about {0.025 * len(value):.1f}."
    )


def _plates(effects: PatchResult, ladder: PatchResult | None, pairs: Pairs) -> tuple[Plate, ...]:
    from circuits.plots import head_map, ladder_chart

    if _kind(effects) == "heads":
        matrix, layers, heads = effects.grid()
        figure = head_map(matrix, layers=layers, heads=heads)
    else:
        figure = effects.plot().update_layout(title=None)
    plates = [
        Plate(
            title=f"Effect of patching single {_kind(effects)}",
            anchor="effects",
            figure=figure,
            caption=(
                f"{effects.convention[:1].upper()}{effects.convention[1:]}. {effects.n} prompts. 0: this "
                "part alone brings nothing back; 1: it "
                "brings back all of the gap. "
                "Effects need not add up to 1."
            ),
        )
    ]
    if ladder is not None and ladder.reason is None:
        plates.append(
            Plate(
                title="Where the answer has arrived",
                figure=ladder_chart(ladder.ticks[0], np.asarray(ladder.value), ladder.interval),
                caption=(
                    "The clean residual stream put into the corrupted run at the last position only, one site "
                    "at a time. The first site holds the last token"
                    + (", which is the same in both runs" if pairs.same_end else "")
                    + "; behind the last block all of the gap is back by construction, which is checked."
                ),
            )
        )
    return tuple(plates)


def _table(effects: PatchResult) -> Table:
    value = np.asarray(effects.value)
    order = np.argsort(-np.abs(np.nan_to_num(value)))[:15]
    rows = []
    for i in order.tolist():
        ends = (None, None) if effects.interval is None else tuple(_number(e) for e in effects.interval[i])
        rows.append(
            (
                effects.components[i],
                _number(value[i]),
                *ends,
                None if effects.control is None else _number(effects.control[i]),
            )
        )
    return Table(
        title=f"Largest effects of single {_kind(effects)}",
        columns=("part", "effect", "low", "high", "control"),
        rows=tuple(rows),
        caption="Share of the gap, 95% bootstrap interval over prompts; control: the same part from another prompt.",
    )


def _findings(effects: PatchResult) -> tuple[Finding, ...]:
    """Every part's effect; the index shows those whose interval lies above the same part from another prompt."""
    value, found = np.asarray(effects.value, dtype=float), []
    for i, (part, site) in enumerate(zip(effects.components, effects.sites, strict=True)):
        low, high = (None, None) if effects.interval is None else map(_number, effects.interval[i])
        control = None if effects.control is None else _number(effects.control[i])
        found.append(
            Finding(
                kind="part",
                name=f"head {site.head}" if site.head is not None else part,
                site=str(site),
                measure="of the swap's cost",
                value=_number(value[i]),
                low=low,
                high=high,
                n=effects.n,
                chance=control,
                href="#effects",
                shown=low is not None and low > max(0.0, control or 0.0),
            )  # fmt: skip
        )
    return tuple(found)


def _number(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _numbers(effects: PatchResult, ladder: PatchResult | None, pairs: Pairs) -> dict[str, object]:
    def told(result: PatchResult) -> dict[str, object]:
        if not _costs(effects):
            reason = (
                result.reason or "the cost of the swap cannot be told from 0: there is no gap to share out"
            )
            return {"parts": list(result.components), "effect": None, "n": result.n, "reason": reason}
        ends = None if result.interval is None else [[_number(e) for e in pair] for pair in result.interval]
        control = None if result.control is None else [_number(c) for c in result.control]
        return {
            "parts": list(result.components),
            "effect": [_number(v) for v in np.asarray(result.value)],
            "interval": ends,
            "level": result.level,
            "control": control,
            "n": result.n,
            "convention": result.convention,
            "reason": result.reason,
        }

    gap = effects.clean - effects.corrupted
    return {
        "task": {
            "n": effects.n,
            "length": int(pairs.clean.ids.shape[1]),
            "name": None if pairs.task is None else pairs.task.name,
            "last_token_kept": pairs.per_position and pairs.same_end,
            "clean_nats": float(effects.clean.mean()),
            "corrupted_nats": float(effects.corrupted.mean()),
            "gap_nats": float(gap.mean()),
            "gap_stderr": float(gap.std(ddof=1) / len(gap) ** 0.5),
        },
        "effects": told(effects),
        "residual_ladder": None if ladder is None else told(ladder),
    }


_UNMASKED = (
    "The model is bidirectional: its favourite at the last position is read where it sees the very token "
    "that stands there (nothing is masked), so copying that token may be all that was asked."
)


def _selection(effects: PatchResult) -> str:
    return (
        f"The part named is the largest of {len(effects.components)} on the very prompts that measured it: "
        "such a winner's share is overstated, and its interval does not allow for the choice. The intervals are "
        f"percentile bootstrap over {effects.n} prompts, and with so few they tend to be too narrow."
    )


def _caveats(pairs: Pairs, effects: PatchResult, *, causal: bool) -> tuple[str, ...]:
    if pairs.task is not None:
        generic, seam, cut = (
            "One task of those that the model can do was asked; other tasks may use other parts.",
            f"What the corrupted prompts change is the task's choice ({_corruption(pairs.task)}); another change may "
            "show other parts.",
            "Prompts of one length were taken, the commonest; other lengths may show other parts.",
        )
    else:
        generic, seam, cut = _made_up(pairs)
    return (
        generic,
        seam,
        cut,
        "Single parts: redundancy hides parts that could each do the job, and parts that only work together "
        "show nothing.",
        *([_selection(effects)] if _costs(effects) else []),
        *([] if causal or not pairs.per_position else [_UNMASKED]),
        *([effects.reason] if effects.reason else []),
    )


def _corruption(task: Any) -> str:
    return str(task.provenance.get("corruption", f"that of {task.name}"))


def _made_up(pairs: Pairs) -> tuple[str, str, str]:
    seam = (
        "The corrupted prompts are unnatural: a foreign context runs into the prompt's own last token."
        if pairs.per_position
        else "The corrupted input is another input altogether."
    )
    return (
        "No task was given. The metric, the log-probability of the model's own favourite, is generic: the map "
        "shows what carries context at large, "
        "and averages over whatever the prompts ask of the model.",
        seam,
        "The prompts were cut to the length, of a few, at which the swap costs most; other lengths may show "
        "other parts.",
    )
