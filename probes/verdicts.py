"""Encoded, and used? What the probe station adds in its full form: each label's best layer is erased of it.

LEACE takes out of the activations there all that a linear probe could read of the label; the model's own next-token
prediction is compared before and after, beside random subspaces of the same rank (:func:`probes.amnesic`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError, InterpError
from interp.study.findings import Finding
from interp.study.sampling import Rows
from interp.study.stations import Study, Table
from probes.auditing import Amnesia, amnesic
from probes.causation import NOT_ENCODED, UNUSED, USED
from probes.erasing import leace
from probes.sweep_result import SweepResult

__all__ = ["N_CONTROLS", "is_encoded", "n_texts", "verdicts"]

N_TEXTS, N_TOKENS = 32, 2048
"""Texts that the model reads again and again, and about how many tokens in all."""
LEAST_TEXTS = 8
N_CONTROLS = 19
"""Random subspaces; 19 is the fewest with which a p-value reaches 0.05."""


def n_texts(study: Study) -> int:
    """How many texts are read under every erasure."""
    fitting = N_TOKENS // max(1, int(study.tokens.ids.shape[1]))
    return min(len(study.tokens), max(LEAST_TEXTS, min(N_TEXTS, fitting)))


def is_encoded(result: SweepResult, best: int) -> bool:
    """Whether the interval at the best site lies above what a probe that knows nothing gets right."""
    nothing = max(float(np.mean(result.chance or 0.0)), float(result.shuffled[best]), 1 / len(result.classes))
    return result.interval is not None and float(result.interval[best, 0]) > nothing


def verdicts(
    study: Study, sweeps: Mapping[str, SweepResult], rows: Mapping[str, tuple[Rows, Tensor]]
) -> tuple[Table, dict[str, Any], tuple[Finding, ...], tuple[str, ...]]:
    """A verdict a label: the table, its numbers, its findings, and why some have none.

    Parameters
    ----------
    rows
        Label -> the rows it was probed on, and their classes.

    Notes
    -----
    Cost: 21 forward passes of at most 32 texts a label that is encoded.
    """
    lines, numbers, findings, lost = [], {}, [], []
    texts, metric = study.tokens[: n_texts(study)], _prediction(study)
    for name, result in sweeps.items():
        best = int(np.nanargmax(np.asarray(result.value)))
        site = result.ticks[0][best]
        found: Amnesia | None = None
        if is_encoded(result, best) and metric is not None:
            try:
                found = _erased(study, site, *rows[name], texts, metric)
            except InterpError as error:
                lost.append(f"{name.capitalize()} was not erased at {site}: {str(error).splitlines()[0]}")
        verdict = _verdict(is_encoded(result, best), found)
        change = None if found is None else -float(found.value)
        half = None if found is None or found.stderr is None else 1.96 * float(found.stderr)
        lines.append(
            (
                name, site, verdict, _round(change),
                _round(None if found is None else -float(np.mean(found.chance or 0.0))),
                None if found is None else round(found.p_value, 3), None if found is None else found.provenance["rank"],
            )
        )  # fmt: skip
        numbers[name] = {
            "site": site, "verdict": verdict, "loss_rise_nats": change,
            "p_value": None if found is None else found.p_value,
            "controls_nats": None if found is None else [-float(c) for c in found.controls],
            "n": None if found is None else found.n, "convention": None if found is None else found.convention,
        }  # fmt: skip
        findings.append(
            Finding(
                kind="probe",
                name=name,
                site=site,
                measure="nats of loss when it is erased",
                value=change,
                low=None if half is None or change is None else change - half,
                high=None if half is None or change is None else change + half,
                n=None if found is None else found.n,
                href="#verdicts",
                shown=False,
            )  # fmt: skip
        )
    table = Table(
        title="Encoded, and used?",
        anchor="verdicts",
        columns=("label", "site", "verdict", "loss rises by (nats)", "random subspaces", "p", "rank erased"),
        rows=tuple(lines),
        caption=(
            "At each label's best site, LEACE erases what can be read of it linearly; rise of the mean next-token "
            f"loss over {len(texts)} texts, beside {N_CONTROLS} random subspaces of the same rank. Used: a rise that "
            "no more than 5% of the subspaces reach."
        ),
    )
    return table, numbers, tuple(findings), tuple(lost)


def _verdict(encoded: bool, found: Amnesia | None) -> str:
    if not encoded:
        return NOT_ENCODED
    if found is None:
        return "encoded"
    return USED if found.p_value <= 0.05 and float(found.value) < 0 else UNUSED


def _erased(study: Study, site: str, rows: Rows, classes: Tensor, texts: Any, metric: Any) -> Amnesia:
    (place,) = study.model.find(site)
    x = rows.acts[place].double().numpy()
    eraser = leace(x, classes.numpy())
    if eraser.rank > x.shape[1] // 4:
        raise InputError(
            f"its {eraser.rank} directions are more than a quarter of {x.shape[1]}: little of the site would be left"
        )
    return amnesic(
        study.model, texts, place, eraser, metric, n_controls=N_CONTROLS, seed=study.seed, batch_size=16
    )


def _prediction(study: Study) -> Any:
    """Logits -> mean log-probability (nats) of the next token in each text; None where the model predicts none."""
    if not study.model.causal or study.tokens.ids.shape[1] < 3:
        return None
    few = study.tokens[: n_texts(study)]
    if study.model.logits(few[:1]).ndim != 3:
        return None
    answer = study.labels.get("answer")
    if answer is not None:
        goal = answer[: n_texts(study)].cpu()
        real = goal >= 0
    else:
        goal = torch.cat([few.ids[:, 1:], few.ids[:, :1]], 1).cpu()
        real = torch.cat([few.mask[:, 1:] & few.mask[:, :-1], torch.zeros_like(few.mask[:, :1])], 1).cpu()
    if not bool(real.any(1).all()):
        return None

    def metric(logits: Tensor) -> Tensor:
        logp = logits.double().cpu().log_softmax(-1)
        each = logp.gather(-1, goal.clamp_min(0)[..., None])[..., 0]
        return (each * real).sum(1) / real.sum(1)

    return metric


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
