"""Train toy models of superposition: ``python -m interp.toys.train_superposition`` makes the ones that ship.

All densities of a sweep are trained at once, as one batched product; a sweep of ten takes seconds on one core.

References
----------
Elhage et al. 2022, "Toy Models of Superposition" (model, importance-weighted loss, optimiser).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError, InterpError
from interp.showing import Shown
from interp.toys.superposition import Superposition, draw, feature_dimensionality, features_per_dimension

__all__ = ["SHIPPED", "SuperpositionRecipe", "main", "superposition_loss", "train_superposition_networks"]

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True, repr=False)
class SuperpositionRecipe(Shown):
    """How toy models of superposition are trained."""

    n_features: int = 5
    d_hidden: int = 2
    importance_decay: float = 1.0
    """Feature i counts ``importance_decay ** i`` in the loss."""
    steps: int = 4000
    batch_size: int = 512
    lr: float = 5e-3
    """Of Adam; it falls to 0 along half a cosine."""

    def __post_init__(self) -> None:
        if min(self.n_features, self.d_hidden, self.steps, self.batch_size) < 1:
            raise InputError(f"sizes and steps must be at least 1, got {asdict(self)}")
        if not 0 < self.importance_decay <= 1:
            raise InputError(f"importance_decay must lie in (0, 1], got {self.importance_decay}")

    @property
    def importance(self) -> Float[Tensor, "feature"]:
        """The weight of each feature's error."""
        return self.importance_decay ** torch.arange(self.n_features, dtype=torch.float32)


def superposition_loss(
    module: Superposition,
    x: Float[Tensor, "sample feature"],
    *,
    importance: Float[Tensor, "feature"] | None = None,
) -> Float[Tensor, "sample"]:
    """sum_i importance_i (x_i - x'_i)^2 of each sample (importance 1 unless given), in float64."""
    error = (x - module(x)).double().square()
    return (error if importance is None else error * importance).sum(-1)


def train_superposition_networks(
    densities: Sequence[float], *, seed: int = 0, recipe: SuperpositionRecipe | None = None
) -> list[Superposition]:
    """One trained model for each density of the features, in evaluation mode.

    The same seed on the same machine gives the same models. Cost: ``steps`` forward and backward passes of a batch
    for each density.

    Raises
    ------
    InputError
        No density was given, or one is not in (0, 1].
    """
    recipe = recipe or SuperpositionRecipe()
    modules = [Superposition(recipe.n_features, recipe.d_hidden, density=p) for p in densities]
    if not modules:
        raise InputError("no densities were given")
    generator = torch.Generator().manual_seed(seed)
    n, m, models = recipe.n_features, recipe.d_hidden, len(modules)
    weight = (torch.randn(models, m, n, generator=generator) / m**0.5).requires_grad_()
    bias = torch.zeros(models, 1, n, requires_grad=True)
    density = torch.tensor(densities).repeat_interleave(recipe.batch_size)[:, None]
    optimiser = torch.optim.Adam([weight, bias], lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    importance = recipe.importance
    for _ in range(recipe.steps):
        x = draw(models * recipe.batch_size, n, density, generator=generator).view(models, -1, n)
        recovered = torch.relu(x @ weight.mT @ weight + bias)
        # each model's own loss, whatever the others': divided by its density, so that all learn at one pace
        loss = (importance * (x - recovered).square()).sum(-1).mean(1) / torch.tensor(densities)
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        schedule.step()
    for i, module in enumerate(modules):
        module.load_state_dict({"weight": weight[i].detach().clone(), "bias": bias[i, 0].detach().clone()})
    return [module.eval() for module in modules]


SHIPPED: dict[str, tuple[float, SuperpositionRecipe]] = {
    "dense": (1.0, SuperpositionRecipe(n_features=20, d_hidden=5, importance_decay=0.7)),
    "pairs": (0.1, SuperpositionRecipe(n_features=4)),
    "pentagon": (0.05, SuperpositionRecipe(n_features=5)),
    "many": (0.02, SuperpositionRecipe(n_features=64, d_hidden=16, steps=8000)),
}
"""Name -> density and recipe of the models that ship as ``superposition:<name>``."""


def card_of(
    module: Superposition, recipe: SuperpositionRecipe, *, seed: int, n: int = 100_000
) -> dict[str, Any]:
    """What the card says of a model: recipe, held-out loss, and its geometry."""
    with torch.no_grad():
        loss = superposition_loss(module, module.features(n, seed=seed + 1), importance=recipe.importance)
    weight = module.weight.detach()
    return {
        "task": "x -> relu(W^T W x + b), sparse x uniform on [0, 1]",
        "density": module.density,
        "seed": seed,
        "recipe": asdict(recipe),
        "loss": float(loss.mean()),
        "loss_stderr": float(loss.std() / n**0.5),
        "n": n,
        "features_per_dimension": features_per_dimension(weight),
        "norms": weight.double().norm(dim=0).tolist(),
        "feature_dimensionality": feature_dimensionality(weight).tolist(),
        "torch": torch.__version__,
        "command": f"python -m interp.toys.train_superposition --seed {seed}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the models that ship and write weights and cards."""
    parser = argparse.ArgumentParser(prog="python -m interp.toys.train_superposition", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(SHIPPED), help="one of them")
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="folder for superposition-*.safetensors and .json"
    )
    options = parser.parse_args(arguments)
    from safetensors.torch import save

    from interp.runs.files import write_bytes_atomic, write_json_atomic

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # at these sizes a second one gains nothing, and the sums come out in one order
    started = time.process_time()
    chosen = SHIPPED if options.only is None else {options.only: SHIPPED[options.only]}
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, (density, recipe) in chosen.items():
            (module,) = train_superposition_networks([density], seed=options.seed, recipe=recipe)
            stem = options.out / f"superposition-{name}"
            write_bytes_atomic(stem.with_suffix(".safetensors"), save(module.state_dict()))
            card = card_of(module, recipe, seed=options.seed)
            write_json_atomic(stem.with_suffix(".json"), card)
            sys.stderr.write(
                f"{name}: {card['features_per_dimension']:.3f} features a dimension, loss {card['loss']:.3g}\n"
            )
    except (InterpError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        torch.set_num_threads(threads)
    sys.stderr.write(f"{time.process_time() - started:.1f} CPU s, written to {options.out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
