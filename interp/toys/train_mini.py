"""Train the embedded language model: ``python -m interp.toys.train_mini --seed 0``.

GPT-2's architecture on the labelled language, one pass over fresh text, about an hour on one core. The run
folder holds checkpoints (a killed run goes on bit for bit), one line of metrics a hundred steps, and a trajectory:
about ten models along the way, for studies of representation over training. At the end the model is stored in 16 bits,
loaded back, and examined; what is shipped is what was examined.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from interp.errors import InputError, InterpError, StoreError, nearest
from interp.runs import checkpoints
from interp.runs.files import JsonLines, ensure_folder, write_bytes_atomic, write_json_atomic
from interp.runs.progress import progress as bar
from interp.runs.progress import stop_on_interrupt
from interp.showing import Shown
from interp.toys.exam import examine_model, failed
from interp.toys.language import Corpus, tokenizer_json, vocabulary
from interp.toys.language.writing import whole

__all__ = ["SIZES", "MiniRecipe", "cache_folder", "main", "mini_checkpoints", "train_mini"]

logger = logging.getLogger(__name__)
LOG_EVERY = 20
"""Steps between metric lines."""
TRAJECTORY = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""When a model is kept, as shares of ``steps``; the finished one is kept too."""


@dataclass(frozen=True, kw_only=True, repr=False)
class MiniRecipe(Shown):
    """Sizes and optimiser.

    The learning rate rises linearly, stays, and falls linearly to a fiftieth over ``steps``; then the same once more
    over ``again`` steps, with two thirds of the rate.
    """

    n_layers: int = 4
    d_model: int = 128
    n_heads: int = 4
    length: int = 64
    batch: int = 64
    steps: int = 4000
    again: int = 2000
    lr: float = 3e-3
    warmup: int = 100
    decay_share: float = 0.4
    decay_share_again: float = 0.6
    weight_decay: float = 0.3
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = 0.95
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "length", "batch", "steps", "warmup"):
            whole(name, getattr(self, name), least=1)
        whole("again", self.again)
        for name in ("lr", "weight_decay", "clip"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}")
        for name in ("decay_share", "decay_share_again"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share, from 0 to 1; got {getattr(self, name)}")
        if self.d_model % self.n_heads:
            raise InputError(f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}")

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.steps + self.again

    def rate(self, step: int) -> float:
        """The learning rate of step ``step`` (the first is 1)."""
        if step <= self.steps:
            return self.lr * _hump(step, self.steps, self.warmup, self.decay_share)
        return 2 / 3 * self.lr * _hump(step - self.steps, self.again, self.warmup, self.decay_share_again)


def _hump(step: int, steps: int, warmup: int, decay_share: float) -> float:
    left = (steps - step + 1) / max(1.0, decay_share * steps)
    return min(1.0, step / warmup) * max(0.02, min(1.0, left))


SIZES = {
    "mini": MiniRecipe(),
    "small": MiniRecipe(n_layers=2, d_model=32, n_heads=2, batch=32, steps=600, again=0),
}
"""The shipped model, and a small one for tests of studies over training."""


def cache_folder(seed: int = 0, size: str = "mini") -> Path:
    """Where a run is kept by default: ``$INTERP_CACHE``, else ``~/.cache/interp-toolkit``."""
    home = os.environ.get("INTERP_CACHE") or Path.home() / ".cache" / "interp-toolkit"
    return Path(home) / f"{size}-seed{seed}"


def mini_checkpoints(
    seed: int = 0, *, size: str = "mini", folder: str | Path | None = None
) -> dict[int, Path]:
    """The models kept along a training, by step: folders for ``interp.load``.

    Parameters
    ----------
    seed, size
        Which run of the cache.
    folder
        A run folder elsewhere.

    Raises
    ------
    InputError
        They are not there; the message says the command that makes them.
    """
    if size not in SIZES:
        raise InputError(f"no size {size!r}{nearest(size, SIZES)} (sizes: {', '.join(SIZES)})")
    run = cache_folder(seed, size) if folder is None else Path(folder)
    found = {
        int(path.name.removeprefix("step-")): path
        for path in sorted((run / "trajectory").glob("step-" + "[0-9]" * 6))
    }
    if not found:
        raise InputError(
            f"no checkpoints in {run / 'trajectory'}; make them with "
            f"`python -m interp.toys.train_mini --seed {seed} --size {size} --out {run}`"
        )
    return found


def _optimizers(module: nn.Module, recipe: MiniRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings, norms and biases.

    References
    ----------
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025 (arXiv 2502.16982)
    for the scale that lets both share one learning rate.
    """
    muon = getattr(torch.optim, "Muon", None)
    if muon is None:
        raise InputError(
            f"training mini needs torch 2.9 or newer for torch.optim.Muon; this is {torch.__version__}"
        )
    hidden, embeddings, rest = [], [], []
    for name, parameter in module.named_parameters():
        (rest if parameter.ndim < 2 else hidden if ".h." in name else embeddings).append(parameter)
    decay = recipe.weight_decay
    groups = [{"params": embeddings, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return [
        muon(
            hidden, lr=recipe.lr, weight_decay=decay, momentum=recipe.momentum, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas),
    ]


class _Run:
    """A training under way: everything that a checkpoint holds."""

    def __init__(self, recipe: MiniRecipe, seed: int) -> None:
        from interp.models.hf import new_gpt2

        self.recipe, self.seed, self.step = recipe, seed, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = new_gpt2(
                d_vocab=len(vocabulary()), n_ctx=recipe.length, n_layers=recipe.n_layers,
                d_model=recipe.d_model, n_heads=recipe.n_heads, bos=0, pad=1,
            )  # fmt: skip
        self.text = Corpus(seed, length=recipe.length)
        self.optimizers = _optimizers(self.module, recipe)

    @property
    def identity(self) -> dict[str, Any]:
        return {"recipe": {**asdict(self.recipe), "betas": list(self.recipe.betas)}, "seed": self.seed}

    def advance(self) -> float:
        """One step; the loss in nats a token."""
        self.step += 1
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.step)
        ids = torch.from_numpy(self.text.rows(self.recipe.batch))
        self.module.zero_grad(set_to_none=True)
        loss = cross_entropy(self.module(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return float(loss.detach())

    def _optimizer_of(self, parameter: Tensor) -> torch.optim.Optimizer:
        return next(
            optimizer
            for optimizer in self.optimizers
            if any(parameter is one for group in optimizer.param_groups for one in group["params"])
        )

    def state(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {
            f"model.{name}": value for name, value in self.module.named_parameters()
        }
        for name, parameter in self.module.named_parameters():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value)
        return tensors

    def restore(self, folder: Path) -> None:
        found = checkpoints.newest(folder)
        if found is None:
            return
        place, manifest, tensors = found
        for name, value in self.identity.items():
            if manifest.get(name) != value:
                raise StoreError(
                    f"{place} belongs to another run: its {name} is {manifest.get(name)}, now {value}; "
                    "choose another folder"
                )
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
                prefix = f"optimizer.{name}."
                held = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                self._optimizer_of(parameter).state[parameter] = held
        self.step, self.text.position = int(manifest["step"]), int(manifest["position"])


def save_model(module: nn.Module, folder: Path, *, dtype: torch.dtype = torch.float16) -> Path:
    """Write a folder that ``interp.load`` and transformers read: weights in ``dtype``, configuration, tokenizer."""
    config: Any = module.config
    ensure_folder(folder)
    tied = {"lm_head.weight"}
    weights = {
        name: value.detach().to(dtype).contiguous()
        for name, value in module.state_dict().items()
        if name not in tied
    }
    write_bytes_atomic(folder / "model.safetensors", save_tensors(weights, metadata={"format": "pt"}))
    kept = {**config.to_diff_dict(), "dtype": str(dtype).removeprefix("torch.")}
    write_json_atomic(folder / "config.json", {k: v for k, v in kept.items() if k != "transformers_version"})
    write_bytes_atomic(folder / "tokenizer.json", tokenizer_json().encode())
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.n_positions,
        "bos_token": "<bos>", "eos_token": "<bos>", "pad_token": "<pad>", "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    write_json_atomic(folder / "tokenizer_config.json", tokenizer)
    return folder


def train_mini(
    out: str | Path,
    *,
    seed: int = 0,
    recipe: MiniRecipe | None = None,
    resume: bool = False,
    checkpoint_every: int = 200,
    progress: bool | None = None,
) -> Path:
    """Train in the folder ``out``; the folder of the finished model, ``out/model``.

    Parameters
    ----------
    out
        Run folder: ``checkpoints/``, ``metrics.jsonl``, ``trajectory/step-*`` (model folders), ``model/``.
    seed
        Of the weights and the text (below 1000: the others belong to tests).
    recipe
        Sizes and optimiser; by default the shipped model's.
    resume
        Go on with the run in ``out`` if there is one: the same numbers as without the interruption, on the same
        machine and number of threads.
    checkpoint_every
        Steps between checkpoints.
    progress
        Show a bar; None shows one on a terminal only.

    Raises
    ------
    InputError
        ``out`` holds a run and ``resume`` is False; the seed is out of range.
    StoreError
        The run in ``out`` has another recipe or seed.
    """
    recipe = recipe or SIZES["mini"]
    whole("checkpoint_every", checkpoint_every, least=1)
    if type(seed) is not int or not 0 <= seed < 1000:
        raise InputError(f"seeds 0 to 999 are for training, got {seed}")
    folder = checkpoints.prepared(Path(out), resume=resume)
    run = _Run(recipe, seed)
    run.restore(folder)
    checkpoints.lines_until(folder, run.step)
    kept = {round(share * recipe.steps) for share in TRAJECTORY} | {recipe.total}
    metrics = JsonLines(folder / checkpoints.METRICS, sync=False)
    losses: list[float] = []
    started = time.process_time()
    with stop_on_interrupt() as stop, bar(total=recipe.total, desc="train mini", enabled=progress) as shown:
        shown.update(run.step)
        while True:
            if run.step in kept:
                save_model(run.module, folder / "trajectory" / f"step-{run.step:06d}")
            if run.step >= recipe.total:
                break
            losses.append(run.advance())
            shown.update(1)
            due = run.step % checkpoint_every == 0 or run.step == recipe.total
            if (
                due or run.step % LOG_EVERY == 0
            ):  # at checkpoints too, so that a resumed run has the same lines
                mean = sum(losses) / len(losses)
                seconds = round(time.process_time() - started, 1)
                metrics.append({"step": run.step, "loss": mean, "cpu_seconds": seconds})
                shown.set_postfix(loss=f"{mean:.3f}")
                losses.clear()
            if due:
                checkpoints.write(
                    folder, run.step, run.state(), {**run.identity, "position": run.text.position}
                )
            stop.check(f"{folder} goes on from its newest checkpoint with resume")
    return save_model(run.module, folder / "model")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, examine, write the card; exit code 1 if the model falls short."""
    from interp.models.loading import load

    parser = argparse.ArgumentParser(prog="python -m interp.toys.train_mini", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=tuple(SIZES), default="mini")
    parser.add_argument("--out", type=Path, help="run folder; by default in the cache")
    parser.add_argument(
        "--threads", type=int, default=1, help="more change the order of sums, so the last bits"
    )
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error("--threads must be at least 1")
    out = options.out or cache_folder(options.seed, options.size)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        model = train_mini(out, seed=options.seed, recipe=SIZES[options.size], resume=True)
        table = examine_model(load(model, dtype=torch.float32))
        write_json_atomic(model / "exam.json", {**_card(options, model), "exam": table})
    except (InterpError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        torch.set_num_threads(threads)
    short = failed(table)
    sys.stderr.write(f"{model}\n" + "".join(f"falls short: {line}\n" for line in short))
    return 1 if short and options.size == "mini" else 0


def _card(options: argparse.Namespace, model: Path) -> Mapping[str, Any]:
    from interp.runs.files import sha256_file

    recipe = SIZES[options.size]
    lines = JsonLines(model.parent / checkpoints.METRICS).read().records
    return {
        "recipe": asdict(recipe),
        "seed": options.seed,
        "n_tokens": recipe.total * recipe.batch * recipe.length,
        "threads": options.threads,
        "curve": [[line["step"], round(line["loss"], 4)] for line in lines if line["step"] % 100 == 0],
        "weights_sha256": sha256_file(model / "model.safetensors"),
        "torch": torch.__version__,
        "cpu_seconds": _seconds([line["cpu_seconds"] for line in lines]),
        "command": f"python -m interp.toys.train_mini --seed {options.seed}",
    }


def _seconds(clock: Sequence[float]) -> float:
    """CPU seconds of a run whose clock begins anew at every resumption."""
    ends = [now for now, after in itertools.pairwise([*clock, -1.0]) if after < now]
    return sum(ends)


if __name__ == "__main__":
    raise SystemExit(main())
