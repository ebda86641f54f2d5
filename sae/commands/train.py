"""`interp sae train`: a dictionary of the activations of a model, or of a store of them, into a run's folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from interp.commands.invocation import Call, enroll, require_file, require_place
from interp.commands.options import (
    NETWORKS,
    AsJson,
    Backend,
    Device,
    DryRun,
    MaxTokens,
    Resume,
    Seed,
    Texts,
    choices,
)
from interp.commands.saying import say

if TYPE_CHECKING:
    from sae.commands.material import Material
    from sae.config import TrainConfig
    from sae.watching import Watch

logger = logging.getLogger("sae")

_SOURCE = "A model (a folder, a hub name, an embedded network), or the folder of an activation store."
_WANDB = "Also log them to this project of Weights & Biases; WANDB_MODE=offline keeps them on disk."


def register(group: typer.Typer) -> None:
    """Add `train` to `interp sae`."""
    enroll(group, "train", train, configured=True, further=_of_training)


def _of_training() -> dict[str, Any]:
    """The options of a training, which only a configuration names."""
    from dataclasses import fields

    from sae.config import TrainConfig

    return {field.name: field for field in fields(TrainConfig) if field.name != "seed"}


def train(  # noqa: PLR0913 - a command's options
    call: Call,
    source: Annotated[
        str, typer.Argument(help=_SOURCE, metavar="MODEL|STORE", autocompletion=choices(*NETWORKS))
    ],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    site: Annotated[
        list[str] | None, typer.Option(help="What is read; several lie side by side.", metavar="SITE")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="What a transcoder writes.", metavar="SITE")
    ] = None,
    texts: Texts = None,
    max_tokens: MaxTokens = 100_000,
    forward_batch: Annotated[
        int, typer.Option(min=1, help="Windows a forward pass; the rows of a step are --set batch_size=N.")
    ] = 16,
    seed: Seed = 0,
    resume: Resume = True,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Also write the metrics there for TensorBoard.", metavar="DIR")
    ] = None,
    wandb: Annotated[str | None, typer.Option(help=_WANDB, metavar="PROJECT")] = None,
    dry_run: DryRun = False,
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a sparse autoencoder or one of its kin; prints the run's folder.

    The options of sae.TrainConfig (kind, d_sae, k, steps, batch_size, lr, ...) are given by --set or in the file.
    The folder holds config.json, metrics.jsonl, checkpoints/, coder/ (sae.load) and the model card (CARD.md, CARD.json)
    with figures on rows that training never saw. Exit code 130 after Ctrl-C, with a checkpoint to go on from.

    Examples:

        interp sae train mini --site blocks.1.hook_resid_post --set d_sae=1024 --set k=16 --out runs/mini

        interp sae train acts --site blocks.5.hook_resid_post --config sae.toml --out runs/gpt2 --dry-run
    """
    from interp.cli import raise_if_interrupted
    from interp.errors import InputError
    from sae.commands.asked import asked
    from sae.commands.material import material

    require_file(texts)
    require_place(out)
    wanted = asked(call.further | {"seed": seed})
    found = material(
        source, site or (), target or (), texts=texts, n_tokens=max_tokens, batch=forward_batch, seed=seed,
        backend=backend, device=device,
    )  # fmt: skip
    if not found.sites:
        raise InputError("say with --site where to read, such as --site blocks.1.hook_resid_post")
    if dry_run:
        from sae.commands.estimate import estimate, told

        cost = estimate(found, wanted, out)
        say(json.dumps(cost, indent=2) if as_json else told(cost))
        return
    raise_if_interrupted()
    record = _run(found, wanted, out, call, resume=resume, logs=_Logs(tensorboard, wandb))
    say(json.dumps(record, indent=2) if as_json else str(out))


class _Logs(NamedTuple):
    """Where the metrics go beside the run's folder."""

    tensorboard: Path | None
    wandb: str | None

    @contextmanager
    def opened(self, out: Path, wanted: TrainConfig) -> Iterator[Watch | None]:
        """What tells them a line; None where nothing was asked for."""
        from sae.watching import to_tensorboard, to_wandb

        with ExitStack() as stack:
            every: list[Watch] = []
            if self.tensorboard is not None:
                every.append(stack.enter_context(to_tensorboard(self.tensorboard)))
            if self.wandb is not None:
                run = to_wandb(self.wandb, dir=out, name=out.name, config=wanted.as_dict())
                every.append(stack.enter_context(run))

            def tell(line: Mapping[str, float]) -> None:
                for watch in every:
                    watch(line)

            yield tell if every else None


def _run(
    found: Material, wanted: TrainConfig, out: Path, call: Call, *, resume: bool, logs: _Logs
) -> dict[str, Any]:
    """Train, judge, and write the card."""
    from sae import train as run_training
    from sae.commands.asked import echo
    from sae.commands.cards import card, write_card

    first = int(os.environ.get("RANK", "0")) == 0  # under torchrun one process writes
    if first:
        echo(out, wanted, found.record, resume=resume)
        call.keep(out)
    if not first:
        logs = _Logs(None, None)
    try:
        with logs.opened(out, wanted) as watch:
            run = run_training(
                found.data,
                wanted,
                out,
                resume=resume,
                site=None if found.model is not None else found.sites,
                target=None if found.model is not None or not found.targets else found.targets,
                watch=watch,
            )
    except KeyboardInterrupt as stopped:
        logger.info("%s", str(stopped).partition(";")[0])  # how to go on is said for every command alike
        raise typer.Exit(130) from stopped
    made = card(run, found, command=call.line)
    if first:
        write_card(out, made)
    return made
