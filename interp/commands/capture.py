"""`interp capture`: texts through a model into an activation store, and its estimate with --dry-run."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.commands.invocation import Call, enroll, require_file, require_place
from interp.commands.options import (
    AsJson,
    Backend,
    BatchSize,
    Device,
    DryRun,
    Model,
    NeededSites,
    NeededTexts,
    Resume,
    Seed,
    Window,
)
from interp.commands.saying import say

if TYPE_CHECKING:
    from interp.stores.harvesting import Settings

logger = logging.getLogger(__name__)

COLUMN_BYTES = 16  # document, token and position of a row


def register(app: typer.Typer) -> None:
    """Add `capture` to the command line."""
    enroll(app, "capture", capture, configured=True)


def capture(  # noqa: PLR0913 - a command's options
    call: Call,
    model: Model,
    texts: NeededTexts,
    sites: NeededSites,
    out: Annotated[
        Path, typer.Option(help="The store becomes a folder in this one, named by the hash of its settings.")
    ],
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16 on the disk.", show_default="the model's")
    ] = None,
    batch_size: BatchSize = 16,
    window: Window = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop with at least this many rows: the last window is finished.",
            show_default="all",
        ),
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            min=2, help="Rows a shard: what a killed run loses at most.", show_default="about 256 MB"
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="The field of a .jsonl line that holds the text.")] = "text",
    bos: Annotated[bool, typer.Option(help="Keep the rows of the beginning-of-sequence token.")] = True,
    backend: Backend = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    resume: Resume = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Keep a model's activations at some sites on disk, one row a token, for every text of a file.

    Prints the path of the store. Interrupted or killed, the same command goes on from the last whole shard.

    Example: interp capture gpt2 --texts stories.jsonl --sites 'blocks.*.hook_resid_post' --out acts --dry-run
    """
    from interp import load
    from interp.stores.harvesting import _settings, harvest

    require_file(texts)
    require_place(out)
    network = load(model, backend=backend, device=device)
    if dry_run:
        settings = _settings(network, sites, dtype, window, batch_size, shard_rows, bos, seed)
        cost = estimate(network, texts, settings, column=column, max_tokens=max_tokens) | {
            "free_bytes": _free(out)
        }
        _say_estimate(cost, as_json=as_json)
        return
    try:
        store = harvest(
            network,
            texts,
            sites,
            out,
            dtype=dtype,
            batch_size=batch_size,
            context=window,
            shard_rows=shard_rows,
            include_bos=bos,
            column=column,
            max_tokens=max_tokens,
            resume=resume,
            seed=seed,
            log=out / "capture.jsonl",
        )
    finally:
        if out.is_dir():  # refused work leaves nothing, stopped work says what it was
            call.keep(out)
    logger.info("the store holds %d rows in %d shards", store.n_rows, len(store.shards))
    if as_json:
        import json

        widths = {str(site): width for site, width in store.widths.items()}
        say(json.dumps({"store": str(store.path), "rows": store.n_rows, "widths": widths}, indent=2))
    else:
        say(str(store.path))


def estimate(
    model: Any, texts: Path, settings: Settings, *, column: str, max_tokens: int | None
) -> dict[str, Any]:
    """What `harvest` would cost: rows, passes, seconds, memory and disk bytes.

    Rows and passes are counted, the time is that of one batch times their number, and memory is the weights, one
    batch at the asked sites, and the two shards that a harvest holds. Nothing is written.
    Cost: reading and tokenizing all texts (up to `max_tokens`), and three forward passes.
    """
    import torch

    from interp.stores.documents import Corpus
    from interp.stores.harvesting import SHARD_BYTES
    from interp.stores.shards import DTYPES
    from interp.tokens import Tokens

    corpus = Corpus(model, texts, context=settings.context, column=column, include_bos=settings.include_bos)
    trial, n_windows, n_tokens, n_kept = [corpus.sample()], 0, 0, 0
    for window in corpus:
        if max_tokens is not None and n_kept >= max_tokens:
            break
        if 0 < n_windows < settings.batch_size:
            trial.append(window.ids)
        n_windows += 1
        n_tokens += len(window.ids)
        n_kept += len(window.ids) - window.first
    tokens = Tokens.of([ids.tolist() for ids in trial])
    acts = model.capture(tokens, settings.sites)  # the first pass warms up
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        model.capture(tokens, settings.sites)
        seconds.append(time.perf_counter() - began)
    per_token = all(
        acts[site].shape[:2] == tokens.ids.shape and acts[site].dim() > 2 for site in settings.sites
    )
    lead = tokens.ids.numel() if per_token else len(trial)
    values = sum(acts[site].numel() for site in settings.sites) // lead
    rows = n_kept if per_token else n_windows
    row_bytes = values * torch.empty((), dtype=DTYPES[settings.dtype]).element_size() + COLUMN_BYTES
    shard_bytes = (
        settings.shard_rows * row_bytes
        if settings.shard_rows
        else max(SHARD_BYTES, settings.context * row_bytes)
    )
    passes = -(-n_windows // settings.batch_size)
    weights = sum(p.numel() * p.element_size() for p in model.module.parameters())
    return {
        "store": settings.hash,
        "sites": list(settings.sites),
        "texts_windows": n_windows,
        "tokens": n_tokens,
        "rows": rows,
        "forward_passes": passes,
        "seconds": round(min(seconds) * passes, 3),
        "memory_bytes": weights
        + sum(acts[site].numel() * acts[site].element_size() for site in settings.sites)
        + 2 * min(rows * row_bytes, shard_bytes),
        "disk_bytes": rows * row_bytes,
    }


def _free(out: Path) -> int:
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(existing).free


def _say_estimate(cost: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import json

        say(json.dumps(cost, indent=2))
        return
    say(f"sites    {len(cost['sites'])}: {', '.join(cost['sites'])}")
    say(f"passes   {cost['forward_passes']} of {cost['texts_windows']} windows, {cost['tokens']} tokens")
    say(f"rows     {cost['rows']}")
    say(f"time     about {cost['seconds']:.1f} s, reading and writing aside")
    say(f"memory   up to {cost['memory_bytes'] / 1e6:.1f} MB besides the libraries")
    short = "" if cost["disk_bytes"] < cost["free_bytes"] else "  NOT ENOUGH"
    say(f"disk     {cost['disk_bytes'] / 1e6:.1f} MB of {cost['free_bytes'] / 1e6:.0f} MB free{short}")
