"""The model card of mini, written from what was measured: ``python -m interp.toys.mini_card RUN [OTHER_RUN]``.

Takes the finished run that ships and, beside it, one of another seed; copies the model into the package with
``card.json`` (every number) and ``CARD.md`` (the same as a page).
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.errors import InterpError
from interp.runs.files import ensure_folder, read_json, write_bytes_atomic, write_json_atomic
from interp.toys.exam import SCORES
from interp.toys.heads import head_facts
from interp.toys.language.lexicon import vocabulary

__all__ = ["card_of", "main", "page"]

HOME = Path(__file__).parent / "weights" / "mini"
FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
KINDS = {
    "previous": "to the token before",
    "induction": "from a repeated token to what followed it the first time",
    "duplicate": "from a repeated token to its first mention",
    "name_mover": "from the end of an IOI prompt to the indirect object",
    "subject": "from the end of an IOI prompt to the last mention of the subject",
}
CANNOT = (
    "It knows 600 words and the sentences that the grammar makes of them; any other word is `<unk>`, and ordinary "
    "English is as good as noise to it.",
    "It sees 64 tokens and has no positions beyond.",
    "Its world is small: people give, find and lose things, events last, days and months follow each other. It "
    "knows no facts.",
    "Held-out combinations are new, but of trained parts: nothing here shows that it would handle a construct that "
    "training never had.",
    "Calendar offsets go to twenty; indirect-object prompts have two names; nested lists are four deep at most.",
    "One model of one seed. Which head does what differs from seed to seed; see the other seed's table.",
)


def card_of(run: Path, other: Path | None) -> dict[str, Any]:
    """Everything measured of a finished run, and of one with another seed."""
    import torch

    from interp.models.loading import load

    card = read_json(run / "model" / "exam.json")
    card["heads"] = head_facts(load(str(run / "model"), dtype=torch.float32))
    if other is not None:
        second = read_json(other / "model" / "exam.json")
        second["heads"] = head_facts(load(str(other / "model"), dtype=torch.float32))
        card["other_seed"] = second
    return card


def page(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    recipe, other = card["recipe"], card.get("other_seed")
    lines = [
        "# mini: a language model whose language is known",
        "",
        f"GPT-2's architecture: {recipe['n_layers']} layers, d_model {recipe['d_model']}, {recipe['n_heads']} heads, "
        f"context {recipe['length']}, {len(vocabulary())} tokens. Trained on {card['n_tokens'] / 1e6:.1f} million "
        f"tokens of `interp.toys.language` (seed {card['seed']}) by `{card['command']}`: "
        f"{recipe['steps'] + recipe['again']} steps, "
        f"Muon and AdamW, {card['cpu_seconds'] / 60:.0f} minutes of one CPU core. Weights are stored in 16 bits and "
        "loaded as float32; all that follows was measured after reloading.",
        "",
        "## What it can do",
        "",
        "On combinations that training never held, though their words and templates occur in it elsewhere. Interval: "
        "95 %, Wilson's of a share, of `greater_than` the mean with 1.96 standard errors. n counts different prompts.",
        "",
        *_table(card),
        "",
        *(f"- `{task}`: {text}." for task, text in SCORES.items()),
        "- *likeliest*: share of held-out prompts whose likeliest next token of all is a right one. The held-out "
        "templates of `gender` also fit a noun phrase, and those of `sva` the end of the sentence, which the model "
        "prefers there; between the forms that are asked for it still knows which. *trained*: the score on "
        "combinations that training held.",
        "",
        *_rest(card),
    ]
    if other:
        both = [
            (row["score"], other["exam"]["tasks"][task]["score"])
            for task, row in card["exam"]["tasks"].items()
        ]
        apart = max(abs(a - b) for a, b in both)
        lines += [
            "",
            f"A training with another seed, of weights and of text, comes within {apart:.3f} of every score above "
            "(0.03 is the tolerance) and passes the same demands:",
        ]
        lines += ["", f"## The same with seed {other['seed']}", "", *_table(other), "", *_rest(other)]
    lines += ["", "## Its heads", "", *_heads(card)]
    if other:
        lines += ["", f"With seed {other['seed']}:", "", *_strongest(other)]
    lines += ["", "## What it cannot do", "", *(f"- {sentence}" for sentence in CANNOT), ""]
    return "\n".join(lines)


def _table(card: Mapping[str, Any]) -> list[str]:
    columns = (
        "task",
        "held out",
        "95 % interval",
        "n",
        "asked",
        "likeliest",
        "trained",
        "by kind: score (likeliest; n)",
    )
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for task, row in card["exam"]["tasks"].items():
        kinds = ", ".join(
            f"{kind} {one['score']:.3f} ({one['likeliest']:.3f}; {one['n']})"
            for kind, one in row["kinds"].items()
        )
        rows.append(
            f"| {task} | {row['score']:.4f} | {row['low']:.3f} - {row['high']:.3f} | {row['n']} | {row['least']} | "
            f"{row['likeliest']:.3f} | {row['train']:.4f} | {kinds} |"
        )
    return rows


def _rest(card: Mapping[str, Any]) -> list[str]:
    copies, fluency = card["exam"]["repeats"], card["exam"]["fluency"]
    return [
        f"Two copies of 24 random tokens (n = {copies['n']}): {copies['first_copy_nats']:.2f} nats a token on the "
        f"first, {copies['second_copy_nats']:.3f} on the second, ratio {copies['ratio']:.3f}.",
        "",
        f"Fresh documents (n = {fluency['n_documents']}, {fluency['n_tokens']} tokens with the end mark): "
        f"{fluency['loss_nats']:.4f} nats a token, perplexity {fluency['perplexity']:.3f}. The generator's own choices "
        f"have {fluency['generator_nats']:.4f} nats, perplexity {fluency['generator_perplexity']:.3f}, on the same "
        f"documents: {fluency['loss_nats'] - fluency['generator_nats']:+.4f} nats from the floor "
        f"(standard error {fluency['difference_stderr']:.4f} over documents).",
    ]


def _ranked(values: Sequence[Sequence[float]]) -> list[tuple[float, str]]:
    named = [(v, f"{layer}.{head}") for layer, row in enumerate(values) for head, v in enumerate(row)]
    return sorted(named, reverse=True)


def _strongest(card: Mapping[str, Any]) -> list[str]:
    attention = card["heads"]["attention"]
    return [
        f"- {kind.replace('_', ' ')} ({text}): "
        + ", ".join(f"{name} {v:.2f}" for v, name in _ranked(attention[kind])[:4])
        for kind, text in KINDS.items()
    ]


def _heads(card: Mapping[str, Any]) -> list[str]:
    ablation = card["heads"]["ablation"]
    names = [
        name
        for _, name in sorted((name, name) for _, name in _ranked(card["heads"]["attention"]["induction"]))
    ]
    n = next(iter(ablation.values()))["n"]
    lines = [
        f"`layer.head` with its mean attention (n = {card['heads']['n']} texts), the strongest first:",
        "",
        *_strongest(card),
        "",
        f"The score of each task when one head's output is put to its mean over the task's prompts (n = {n} a task; "
        f"standard error at most {0.5 / math.sqrt(n):.3f}); blank where the score falls by less than 0.02:",
        "",
        "| task | unharmed | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for task, row in ablation.items():
        cells = []
        for name in names:
            layer, head = (int(part) for part in name.split("."))
            value = row["without"][layer][head]
            cells.append(f"{value:.2f}" if row["score"] - value >= 0.02 else "")
        lines.append(f"| {task} | {row['score']:.3f} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy a finished run into the package and write its card."""
    parser = argparse.ArgumentParser(prog="python -m interp.toys.mini_card", description=__doc__)
    parser.add_argument("run", type=Path, help="the finished run folder that ships")
    parser.add_argument("other", type=Path, nargs="?", help="a finished run of another seed")
    parser.add_argument("--out", type=Path, default=HOME)
    options = parser.parse_args(arguments)
    try:
        card = card_of(options.run, options.other)
        ensure_folder(options.out)
        for name in FILES:
            shutil.copyfile(options.run / "model" / name, options.out / name)
        write_json_atomic(options.out / "card.json", card)
        write_bytes_atomic(options.out / "CARD.md", page(read_json(options.out / "card.json")).encode())
    except (InterpError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
