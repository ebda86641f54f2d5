"""Train a small network to compute in a group: ``python -m interp.toys.train_group --group C59 --seed 0``.

The task is ``a b`` -> ``w(a, b)``, the product by default: the network sees a part of the table (full batch, AdamW
with strong weight decay) and is tested on the rest. It first memorises, then generalises: it "groks" the group.
:func:`grok` is the quick live form; ``recipes.py`` holds the settings.

References
----------
Chughtai, Chan and Nanda 2023, "A Toy Model of Universality", section 3 (task, split, optimiser).
Power et al. 2022, "Grokking: generalization beyond overfitting on small algorithmic datasets".
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from interp.errors import InputError, InterpError
from interp.toys.groups import Group
from interp.toys.groups.words import Word
from interp.toys.networks import Shape, Transformer
from interp.toys.perceptron import Perceptron, PerceptronShape
from interp.toys.recipes import RECIPES, Recipe, recipe_for
from interp.toys.training_runs import CURVE, Checkpoint, GroupRun

__all__ = ["RECIPES", "Recipe", "grok", "main", "pairs", "split", "train", "train_group_network"]

logger = logging.getLogger("interp")
WEIGHTS = Path(__file__).parent / "weights"
Watch = Callable[[Sequence[Sequence[float]]], None]


def pairs(group: Group, word: str = "ab") -> tuple[Int64[Tensor, "sample pos"], Int64[Tensor, " sample"]]:
    """Every input ``a b =`` of the task and its answer w(a, b); the token ``=`` has the id ``group.order``."""
    row = torch.arange(group.order)
    products = torch.cartesian_prod(row, row)
    equals = torch.full((len(products), 1), group.order)
    return torch.cat([products, equals], 1), Word(word).values(group, products[:, 0], products[:, 1])


def split(
    group: Group, train_fraction: float, *, seed: int
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """The indices of the training and the test pairs, as published: a seeded permutation of all order^2 pairs
    (left operand slowest), of which the first ``int(train_fraction * order^2)`` are for training.

    Raises
    ------
    InputError
        One of the parts would be empty.
    """
    n = group.order**2
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    n_train = int(train_fraction * n)
    if not 0 < n_train < n:
        raise InputError(f"{group.name} has {n} pairs: too few to hold any out at {train_fraction}")
    return order[:n_train], order[n_train:]


def train_group_network(
    group: Group, *, seed: int = 0, recipe: Recipe | None = None, progress: bool | None = None
) -> tuple[Transformer | Perceptron, dict[str, Any]]:
    """The network and card of :func:`train`."""
    run = train(group, seed=seed, recipe=recipe, progress=progress)
    return run.module, dict(run.card)


def grok(
    name: str,
    *,
    seed: int = 0,
    network: str = "mlp",
    watch: Watch | None = None,
    progress: bool | None = None,
) -> GroupRun:
    """Grok a group live: train with the quick recipe until the unseen part of its table is known.

    Parameters
    ----------
    name
        The group, such as ``"S5"`` (about 20 CPU seconds), ``"C113"`` (10), ``"D15"`` (1).
    seed
        Decides the split and the initial weights.
    network
        ``"mlp"`` or ``"transformer"``.
    watch
        Called at every check with the curve so far, to draw it live.
    progress
        Show a bar; None shows one on a terminal only.

    Returns
    -------
    GroupRun
        With ``.module``, ``.card``, ``.checkpoints`` at every check, and ``.plot()``.
    """
    recipe = recipe_for(name, network)
    return train(
        Group(name), seed=seed, recipe=recipe, keep_every=recipe.check_every, watch=watch, progress=progress
    )


def train(
    group: Group,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    keep_every: int | None = None,
    watch: Watch | None = None,
    progress: bool | None = None,
) -> GroupRun:
    """Train until the held-out part of the table is answered without a mistake.

    Parameters
    ----------
    group
        The group that is learned.
    seed
        Decides the split and the initial weights; the same seed on the same machine gives the same network.
    recipe
        Sizes, task and optimiser; by default the transformer's known for this group, else ``Recipe()``.
    keep_every
        Keep the weights each so many epochs (a multiple of the recipe's ``check_every``), and those of epoch 0.
    watch
        Called at every check with the curve so far.
    progress
        Show a bar; None shows one on a terminal only.

    Returns
    -------
    GroupRun
        The trained network in evaluation mode; its card with recipe, seed, epochs, accuracies with their n, loss in
        nats, a curve, seconds; checkpoints. A network that did not generalise is returned too; its card says so.

    Notes
    -----
    Cost: one forward and backward pass of the training pairs per epoch; C59 takes about 600 epochs, 15-30 CPU seconds.
    """
    from interp.runs.progress import progress as bar

    recipe = recipe or recipe_for(group.name)
    if keep_every is not None and (keep_every < 1 or keep_every % recipe.check_every):
        raise InputError(f"keep_every {keep_every} is no multiple of check_every {recipe.check_every}")
    ids, answers = pairs(group, recipe.word)
    training, test = split(group, recipe.train_fraction, seed=seed)
    module, logits = _network(group, recipe, seed)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=recipe.betas
    )
    warm = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: min(1.0, (epoch + 1) / recipe.warmup))
    kept = [] if keep_every is None else [Checkpoint.of(0, module)]
    curve: list[list[float]] = []
    epoch, started = 0, time.process_time()
    shown = bar(
        range(1, recipe.epochs + 1), total=recipe.epochs, desc=f"train {group.name}", enabled=progress
    )
    for epoch in shown:
        optimiser.zero_grad(set_to_none=True)
        cross_entropy(logits(ids[training]), answers[training]).backward()
        optimiser.step()
        warm.step()
        if epoch % recipe.check_every and epoch != recipe.epochs:
            continue
        seen, unseen = (_score(logits, ids[part], answers[part]) for part in (training, test))
        curve.append([epoch, seen[0], unseen[0], seen[1], unseen[1]])
        logger.debug("epoch %d: train %.4f, test %.4f, test loss %.2e", epoch, seen[0], *unseen)
        shown.set_postfix(train=f"{seen[0]:.3f}", test=f"{unseen[0]:.3f}")
        if keep_every is not None and epoch % keep_every == 0:
            kept.append(Checkpoint.of(epoch, module))
        if watch is not None:
            watch(curve)
        if unseen[0] == 1 and unseen[1] < recipe.until_loss:
            break
    card = _card(group, recipe, seed, module, curve, (len(training), len(test)))
    card["cpu_seconds"] = round(time.process_time() - started, 1)
    return GroupRun(module=module.eval(), card=card, checkpoints=tuple(kept), group=group)


def _network(
    group: Group, recipe: Recipe, seed: int
) -> tuple[Transformer | Perceptron, Callable[[Tensor], Tensor]]:
    """The untrained network, and its logits for rows ``a b =``."""
    generator = torch.Generator().manual_seed(seed)
    if recipe.network == "mlp":
        sizes = PerceptronShape(
            order=group.order,
            d_embed=recipe.d_embed,
            d_hidden=recipe.d_hidden,
            activation=recipe.activation,
        )
        perceptron = Perceptron(sizes, scale=recipe.scale, generator=generator)
        return perceptron, lambda ids: perceptron.logits(ids[:, 0], ids[:, 1])
    shape = Shape(
        d_vocab=group.order + 1,
        n_ctx=3,
        n_layers=recipe.n_layers,
        d_model=recipe.d_model,
        n_heads=recipe.n_heads,
        d_mlp=recipe.d_mlp,
    )
    transformer = Transformer(shape, generator=generator)
    return transformer, lambda ids: transformer(ids)[:, -1]


@torch.no_grad()
def _score(logits: Callable[[Tensor], Tensor], ids: Tensor, answers: Tensor) -> tuple[float, float]:
    """Accuracy, and mean loss in nats (float64)."""
    given = logits(ids).double()
    return (given.argmax(-1) == answers).double().mean().item(), cross_entropy(given, answers).item()


def _card(
    group: Group,
    recipe: Recipe,
    seed: int,
    module: Transformer | Perceptron,
    curve: list[list[float]],
    n: tuple[int, int],
) -> dict[str, Any]:
    epoch, train_accuracy, accuracy, train_loss, loss = curve[-1]
    return {
        "task": f"a b = -> {recipe.word}",
        "group": group.name,
        "order": group.order,
        "network": recipe.network,
        "word": recipe.word,
        "seed": seed,
        "epochs": epoch,
        "recipe": asdict(recipe),
        "shape": module.config(),
        "train_accuracy": train_accuracy,
        "n_train": n[0],
        "train_loss": train_loss,
        "test_accuracy": accuracy,
        "n_test": n[1],
        "test_loss": loss,
        "loss_unit": "nats",
        "curve_columns": list(CURVE),
        "curve": curve,
        "torch": torch.__version__,
        "command": f"python -m interp.toys.train_group --group {group.name} --network {recipe.network} "
        f"--word '{recipe.word}' --seed {seed}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one network and write its weights and card; exit code 1 if it did not generalise."""
    parser = argparse.ArgumentParser(prog="python -m interp.toys.train_group", description=__doc__)
    parser.add_argument("--group", default="C59", help="a name that interp.toys.Group takes")
    parser.add_argument("--network", default="transformer", help="transformer or mlp")
    parser.add_argument("--word", default="ab", help="what is computed: ab, aba^-1, [a,b], a^2b ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="at most this many")
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder for <group>.safetensors and <group>.json"
    )
    options = parser.parse_args(arguments)
    # One thread: at these sizes a second one gains nothing, and the sums come out in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        group = Group(options.group)
        changes = {"word": options.word} | ({"epochs": options.epochs} if options.epochs else {})
        run = train(group, seed=options.seed, recipe=recipe_for(group.name, options.network, **changes))
        run.write_network(options.out, name=group.name)
    except (InterpError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        torch.set_num_threads(threads)
    card = run.card
    sys.stderr.write(
        f"{group.name}: epoch {card['epochs']}, test accuracy {card['test_accuracy']:.4f} "
        f"(n={card['n_test']}), {card['cpu_seconds']} CPU s, written to {options.out}\n"
    )
    return 0 if card["test_accuracy"] == 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
