"""What each head of a language model attends to on texts whose structure is known, and what is lost without it.

The simple, trusted means: attention scores on repeated random tokens and on prompts whose names are known, and the
task scores with one head's output put to its mean. They describe; a circuit is proved elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.edits import ablate
from interp.toys.exam import EXAM_SEED, answer_rows, next_probabilities, repeats, scores
from interp.toys.language.prompts import TASKS, PromptPair, prompt_pairs
from interp.toys.repeats import head_scores

__all__ = ["ablation_table", "attention_scores", "head_facts"]

PATTERN, HEADS = "blocks.{}.attn.hook_pattern", "blocks.{}.attn.hook_z"


def attention_scores(
    model: Any, *, n: int = 100, seed: int = EXAM_SEED
) -> dict[str, Float[Tensor, "layer head"]]:
    """Mean attention of every head to the places that name its kind.

    On two copies of a random sequence, from the second copy: ``previous`` to the token before, ``duplicate`` to the
    same token in the first copy, ``induction`` to the token behind it. On IOI prompts, from the last token:
    ``name_mover`` to the indirect object, ``subject`` to the last mention of the subject.

    Returns
    -------
    dict
        By kind, mean attention probability [layer, head], in 0..1; a head that spreads evenly has about 1/25.

    Notes
    -----
    Cost: two forward passes of ``n`` rows.
    """
    on_repeats = head_scores(model, repeats(n, seed=seed))
    found = {kind: getattr(on_repeats, kind) for kind in ("previous", "induction", "duplicate")}
    return found | _name_attention(model, n, seed)


def _name_attention(model: Any, n: int, seed: int) -> dict[str, Tensor]:
    pairs = prompt_pairs("ioi", n=n, seed=seed)
    prompts = answer_rows(pairs)
    sites = [PATTERN.format(layer) for layer in range(model.n_layers)]
    acts = model.capture(prompts.ids, sites, batch_size=64)
    pattern = torch.stack([acts[site].double() for site in sites])
    rows = torch.arange(len(pairs))
    out = {}
    for kind, fact, occurrence in (("name_mover", "indirect", 0), ("subject", "subject", -1)):
        where = [
            1 + [i for i, word in enumerate(pair.clean) if word == pair.facts[fact]][occurrence]
            for pair in pairs
        ]
        out[kind] = pattern[:, rows, :, prompts.lengths - 1, torch.tensor(where)].mean(0)
    return out


def ablation_table(model: Any, *, n: int = 200, seed: int = EXAM_SEED) -> dict[str, dict[str, Any]]:
    """The exam's score of each task with one head's output put to its mean over the task's own prompts.

    Returns
    -------
    dict
        By task: ``score`` unharmed, ``without`` [layer][head] the score without that head, ``n``.

    Notes
    -----
    Cost: layers x heads + 2 forward passes of ``n`` prompts a task.
    """
    table = {}
    for task in TASKS:
        pairs = prompt_pairs(task, n=n, seed=seed)
        reference = model.capture(answer_rows(pairs), "blocks.*.attn.hook_z", batch_size=64)
        without = []
        for layer in range(model.n_layers):
            row = []
            for head in range(model.n_heads):
                edit = ablate(HEADS.format(layer), head=head, how="mean", reference=reference)
                row.append(_score(_under(model, edit), task, pairs))
            without.append(row)
        table[task] = {"score": _score(model.logits, task, pairs), "without": without, "n": n}
    return table


def _score(module: Any, task: str, pairs: Sequence[PromptPair]) -> float:
    return float(scores(next_probabilities(module, pairs), task, pairs).mean())


def _under(model: Any, edit: Any) -> Any:
    return lambda ids: model.logits(ids, edits=[edit])


def head_facts(model: Any, *, n: int = 100, seed: int = EXAM_SEED) -> dict[str, Any]:
    """Attention scores and ablation table as plain lists, for the model card."""
    scored = attention_scores(model, n=n, seed=seed)
    return {
        "attention": {
            kind: [[round(v, 4) for v in row] for row in values.tolist()] for kind, values in scored.items()
        },
        "ablation": ablation_table(model, n=2 * n, seed=seed),
        "n": n,
    }
