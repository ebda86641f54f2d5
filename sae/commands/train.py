"""`interp sae train`: a dictionary of the activations of a model, or of a store of them, into a run's folder."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.commands.analyze import Backend

if TYPE_CHECKING:
    from sae.commands.material import Material
    from sae.config import TrainConfig

logger = logging.getLogger("sae")

_SOURCE = "A model (a folder, a hub name, an embedded network), or the folder of an activation store."
_CONFIG = "TOML or JSON with options of sae.TrainConfig, such as a run's own config.json."
_SET = "One option of sae.TrainConfig, over the file's: k=16, kind=batchtopk; may be repeated."


def register(group: typer.Typer) -> None:
    """Add `train` to `interp sae`."""
    group.command("train")(train)


def train(  # noqa: PLR0913 - a command's options
    source: Annotated[str, typer.Argument(help=_SOURCE, metavar="MODEL|STORE")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    site: Annotated[
        list[str] | None, typer.Option(help="What is read; several lie side by side.", metavar="SITE")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="What a transcoder writes.", metavar="SITE")
    ] = None,
    config: Annotated[Path | None, typer.Option(help=_CONFIG)] = None,
    options: Annotated[list[str] | None, typer.Option("--set", help=_SET, metavar="NAME=VALUE")] = None,
    texts: Annotated[Path | None, typer.Option(help="What a model reads: .jsonl, or .txt.")] = None,
    n_tokens: Annotated[
        int, typer.Option(min=100, help="Tokens of an embedded network's own text.")
    ] = 100_000,
    batch: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 16,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out, if there is one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop.")] = False,
    backend: Annotated[Backend, typer.Option(help="The library that runs the model.")] = "auto",
    device: Annotated[str, typer.Option(help="Of the model: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object to standard output.")
    ] = False,
) -> None:
    """Train a sparse autoencoder or one of its kin; prints the run's folder.

    It holds config.json, metrics.jsonl, checkpoints/, coder/ (sae.load) and the model card, CARD.md and CARD.json,
    with figures on rows that training never saw. Exit code 130 after Ctrl-C, with a checkpoint to go on from.

    Examples:

        interp sae train mini --site blocks.1.hook_resid_post --set d_sae=1024 --set k=16 --out runs/mini

        interp sae train acts --site blocks.5.hook_resid_post --config sae.toml --out runs/gpt2 --dry-run
    """
    from interp.cli import raise_if_interrupted
    from interp.errors import InputError
    from sae.commands.asked import asked
    from sae.commands.material import material

    wanted = asked(config, options or ())
    found = material(
        source, site or (), target or (), texts=texts, n_tokens=n_tokens, batch=batch, seed=wanted.seed,
        backend=backend, device=device,
    )  # fmt: skip
    if not found.sites:
        raise InputError("say with --site where to read, such as --site blocks.1.hook_resid_post")
    if dry_run:
        from sae.commands.estimate import estimate, told

        cost = estimate(found, wanted, out)
        typer.echo(json.dumps(cost, indent=2) if as_json else told(cost))
        return
    raise_if_interrupted()
    record = _run(found, wanted, out, resume=resume)
    typer.echo(json.dumps(record, indent=2) if as_json else str(out))


def _run(found: Material, wanted: TrainConfig, out: Path, *, resume: bool) -> dict[str, Any]:
    """Train, judge, and write the card."""
    from sae import train as run_training
    from sae.commands.asked import echo
    from sae.commands.cards import card, write_card

    first = int(os.environ.get("RANK", "0")) == 0  # under torchrun one process writes
    if first:
        echo(out, wanted, found.record, resume=resume)
    try:
        run = run_training(
            found.data,
            wanted,
            out,
            resume=resume,
            site=None if found.model is not None else found.sites,
            target=None if found.model is not None or not found.targets else found.targets,
        )
    except KeyboardInterrupt as stopped:
        logger.info("%s", stopped)
        raise typer.Exit(130) from stopped
    made = card(run, found, command=shlex.join(["interp", *sys.argv[1:]]))
    if first:
        write_card(out, made)
    return made
