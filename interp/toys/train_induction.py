"""Train a two-layer attention-only transformer to repeat: ``python -m interp.toys.train_induction --seed 0``.

The period changes from batch to batch, so that no fixed distance can be learned in its place: the earlier occurrence
has to be found by its content, and that takes two heads, one in each layer. Positions are a learned bias on the
scores by head and distance. With learned embeddings in the residual stream the same recipe repeats as well, but its
first layer attends to several tokens back at once, and no single head is a previous-token head.

References
----------
Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (two-layer attention-only transformers).
Olsson et al. 2022, "In-context Learning and Induction Heads".
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from interp.errors import InputError, InterpError
from interp.showing import Shown
from interp.toys.networks import Shape, Transformer
from interp.toys.repeats import copy_loss, head_scores, repeated

__all__ = ["InductionRecipe", "main", "measure", "train_induction_network"]

logger = logging.getLogger("interp")
WEIGHTS = Path(__file__).parent / "weights"
HELD_OUT = 1_000_003
"""Added to the seed for the sequences that are measured on."""


@dataclass(frozen=True, kw_only=True, repr=False)
class InductionRecipe(Shown):
    """How the induction network is trained."""

    d_vocab: int = 64
    n_ctx: int = 64
    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 4
    shortest: int = 4
    longest: int = 24
    """Tokens in the repeated block: uniform between the two, one length a batch."""
    steps: int = 3000
    batch_size: int = 64
    lr: float = 3e-3
    warmup: int = 100
    """Steps of linear warm-up; the rate then falls linearly to a twentieth."""
    weight_decay: float = 0.01
    distance_lr: float = 3e-2
    """Of the biases by distance, which do not decay: attention sharpens before the later layer can do without."""
    betas: tuple[float, float] = (0.9, 0.98)

    def __post_init__(self) -> None:
        if not 2 <= self.shortest <= self.longest or 2 * self.longest + 1 > self.n_ctx:
            raise InputError(
                f"blocks of {self.shortest} to {self.longest} tokens, twice, do not fit a context of {self.n_ctx}"
            )
        if min(self.steps, self.batch_size, self.warmup) < 1:
            raise InputError(
                f"steps, batch_size and warmup must be at least 1, got {self.steps}, {self.batch_size}, {self.warmup}"
            )

    def rate(self, step: int) -> float:
        """The learning rate's factor at a step counted from 0."""
        return min(1.0, (step + 1) / self.warmup) * (1 - 0.95 * step / self.steps)


def train_induction_network(
    *, seed: int = 0, recipe: InductionRecipe | None = None, progress: bool | None = None
) -> tuple[Transformer, dict[str, Any]]:
    """Train on fresh sequences; the network in evaluation mode, and its card.

    The same seed on the same machine gives the same network. A network that did not learn is returned too; its card
    says so. Cost: one forward and backward pass of a batch a step; about 45 seconds of one core.
    """
    from interp.runs.progress import progress as bar

    recipe = recipe or InductionRecipe()
    generator = torch.Generator().manual_seed(seed)
    shape = Shape(
        d_vocab=recipe.d_vocab, n_ctx=recipe.n_ctx, n_layers=recipe.n_layers,
        d_model=recipe.d_model, n_heads=recipe.n_heads, d_mlp=0, positions="distance",
    )  # fmt: skip
    module = Transformer(shape, generator=generator)
    optimiser = _optimiser(module, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, recipe.rate)
    curve, started = [], time.process_time()
    for step in bar(range(1, recipe.steps + 1), total=recipe.steps, desc="train induction", enabled=progress):
        period = int(torch.randint(recipe.shortest, recipe.longest + 1, (1,), generator=generator))
        ids = repeated(recipe.batch_size, period, d_vocab=recipe.d_vocab, generator=generator)
        optimiser.zero_grad(set_to_none=True)
        cross_entropy(module(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimiser.step()
        schedule.step()
        if step % 250 == 0 or step == recipe.steps:
            first, second = _losses(module, recipe, seed, n=128)
            curve.append([step, first, second])
            logger.debug("step %d: first copy %.3f, second %.3f nats", step, first, second)
    card = {
        "task": "next token on a random block of tokens repeated once",
        "seed": seed,
        "recipe": asdict(recipe),
        "shape": module.config(),
        "positions": "a learned bias on the scores by head and distance; none in the residual stream",
        "curve_columns": ["step", "first_copy_nats", "second_copy_nats"],
        "curve": curve,
        "cpu_seconds": round(time.process_time() - started, 1),
        "torch": torch.__version__,
        "command": f"python -m interp.toys.train_induction --seed {seed}",
    }
    return module.eval(), card | measure(module, recipe, seed=seed)


def _optimiser(module: Transformer, recipe: InductionRecipe) -> torch.optim.Optimizer:
    named = list(module.named_parameters())
    biases = [weight for name, weight in named if name.endswith("distance")]
    rest = [weight for name, weight in named if not name.endswith("distance")]
    groups = [
        {"params": rest, "lr": recipe.lr, "weight_decay": recipe.weight_decay},
        {"params": biases, "lr": recipe.distance_lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=recipe.betas)


@torch.no_grad()
def _losses(module: Transformer, recipe: InductionRecipe, seed: int, *, n: int) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(seed + HELD_OUT)
    ids = repeated(n, recipe.longest, d_vocab=recipe.d_vocab, generator=generator)
    first, second = copy_loss(module(ids), ids)
    return float(first.mean()), float(second.mean())


@torch.no_grad()
def measure(module: Transformer, recipe: InductionRecipe, *, seed: int, n: int = 1000) -> dict[str, Any]:
    """What the card says of a network, on ``n`` sequences of the longest block that it never saw."""
    from interp import load

    measured: dict[str, Any] = {"n": n, "period": recipe.longest, "loss_unit": "nats"}
    for name, distinct in (("", False), ("distinct_", True)):
        generator = torch.Generator().manual_seed(seed + HELD_OUT + 1)
        ids = repeated(n, recipe.longest, d_vocab=recipe.d_vocab, generator=generator, distinct=distinct)
        logits = module(ids)
        first, second = copy_loss(logits, ids)
        right = (logits[:, :-1].argmax(-1) == ids[:, 1:])[:, recipe.longest + 1 :]
        measured |= {
            f"{name}first_copy_loss": float(first.mean()),
            f"{name}second_copy_loss": float(second.mean()),
            f"{name}loss_ratio": float(second.mean() / first.mean()),
            f"{name}second_copy_accuracy": float(right.double().mean()),
        }
    scores = head_scores(load(module), ids)
    for kind in ("previous", "induction", "duplicate", "first"):
        measured[f"{kind}_scores"] = getattr(scores, kind).tolist()
    return measured


def learned(card: dict[str, Any]) -> bool:
    """Whether a network is what its name says: a tenth of the loss on the second copy, and both heads there."""
    best = [max(map(max, card[f"{kind}_scores"])) for kind in ("previous", "induction")]
    return card["loss_ratio"] <= 0.1 and min(best) > 0.6


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write weights and card; exit code 1 if the network did not learn."""
    parser = argparse.ArgumentParser(prog="python -m interp.toys.train_induction", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=InductionRecipe.steps)
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder for induction.safetensors and .json"
    )
    options = parser.parse_args(arguments)
    from safetensors.torch import save

    from interp.runs.files import write_bytes_atomic, write_json_atomic

    # One thread: at these sizes a second one gains nothing, and the sums come out in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module, card = train_induction_network(seed=options.seed, recipe=InductionRecipe(steps=options.steps))
        options.out.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(options.out / "induction.safetensors", save(module.state_dict()))
        write_json_atomic(options.out / "induction.json", card)
    except (InterpError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        torch.set_num_threads(threads)
    sys.stderr.write(
        f"induction: second copy {card['second_copy_loss']:.3f} of {card['first_copy_loss']:.3f} nats "
        f"(n={card['n']}), {card['cpu_seconds']} CPU s, written to {options.out}\n"
    )
    return 0 if learned(card) else 1


if __name__ == "__main__":
    raise SystemExit(main())
