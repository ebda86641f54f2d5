"""Texts through a model into an activation store, so that a killed run goes on to the same bytes.

Each shard is a pure function of a stretch of the texts, and its manifest line says where the next
stretch begins: nothing else of a run is kept, so whoever has the last line can go on. Read next:
``filling.py`` (how a shard is filled), ``documents.py`` (the stream of texts and its cursor),
``shards.py`` (the bytes), ``store.py`` (reading).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError, SiteError, StoreError
from interp.models.base import Model
from interp.runs.files import ensure_folder, json_bytes, locked, sweep_temporaries, write_json_atomic
from interp.runs.progress import EventLog, stop_on_interrupt
from interp.runs.provenance import provenance
from interp.sites import Site
from interp.stores.documents import Corpus
from interp.stores.filling import Filling, require_rows, seeded
from interp.stores.manifest import SCHEMA, manifest_name, read_config, sealed, shard_name, verify_shards
from interp.stores.shards import Layout, dtype_name
from interp.stores.store import ActivationStore
from interp.tokens import Tokens

__all__ = ["Settings", "harvest"]

CONTEXT = 1024
SHARD_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides the bytes of a store, besides the texts. Its hash names the folder."""

    schema: str
    weights_sha256: str
    config_sha256: str | None
    """Of the model's configuration: the same weights with another activation function compute something else."""
    backend: str
    model_dtype: str
    tokenizer_sha256: str | None
    sites: tuple[str, ...]
    dtype: str
    context: int
    batch_size: int
    """Windows a pass; part of the identity because padding to another batch may move the last bit."""
    shard_rows: int | None
    include_bos: bool
    seed: int

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the settings' canonical JSON."""
        return hashlib.sha256(json_bytes(asdict(self))).hexdigest()[:16]


def harvest(  # noqa: PLR0913 - one keyword for each line of the store's configuration
    model: Model,
    texts: Any,
    sites: str | Site | Sequence[str | Site],
    out: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    batch_size: int = 16,
    context: int | None = None,
    shard_rows: int | None = None,
    include_bos: bool = True,
    column: str = "text",
    max_tokens: int | None = None,
    resume: bool = True,
    seed: int = 0,
    part: tuple[int, int] | None = None,
    progress: bool | None = None,
    log: str | Path | None = None,
) -> ActivationStore:
    """Run texts through a model and keep its activations at several sites on disk.

    One row a real token (padding is never stored), in the order of the texts. Where a site has no
    positions, one row a text. Called again with the same settings it goes on where the last run
    ended or was killed, to the same bytes; given more texts behind the old ones, or a larger
    ``max_tokens``, it adds to the store.

    Parameters
    ----------
    model
        A model of :func:`interp.load`.
    texts
        An iterable of texts, of token id lists or tensors [pos], or of data-set rows (see
        ``column``); Tokens; or the path of a .jsonl or .txt file. It is streamed. To resume, give it
        from the beginning: what was harvested before is passed over and its hash compared.
    sites
        Names or globs, for example ``"blocks.*.hook_resid_post"``.
    out
        The store is the folder ``out/<hash of the settings>``.
    dtype
        ``float32``, ``float16`` or ``bfloat16``; the model's by default.
    batch_size
        Windows a forward pass.
    context
        The longest window in tokens; longer texts are cut into several, each beginning with the
        text's beginning-of-sequence token. By default the model's context, at most 1024.
    shard_rows
        Rows a shard at most; by default what makes about 256 MiB. A killed run loses at most one
        shard's work; memory holds two shards.
    include_bos
        Whether rows of the beginning-of-sequence token are kept.
    column
        The field of a data-set row or JSON line that holds the text (or the token ids).
    max_tokens
        Stop once this many rows are stored; the window that reaches it is kept whole. Of several
        processes, each stores its share.
    resume
        False refuses a store that already has rows.
    seed
        For a model that draws random numbers in its forward pass: each shard begins from it.
    part
        ``(rank, world_size)``: harvest every ``world_size``-th text only. By default as torchrun's
        environment (RANK, WORLD_SIZE) says. The parts share one folder, or are copied into one.
    progress
        Whether to show a bar; by default on a terminal.
    log
        A file for JSON-lines events.

    Returns
    -------
    ActivationStore
        With the rows of every process that has begun.

    Raises
    ------
    SiteError
        For unknown sites and those without a row per token (attention patterns).
    InputError
        For texts without tokens, ids outside the vocabulary, unusable settings or folder.
    StoreError
        If the disk is full, the texts are not those harvested before, another process harvests into
        the same store, or the store is damaged (a flipped bit in a shard included). What was
        complete stays; run again to go on.
    CheckError
        If an activation is not finite.
    KeyboardInterrupt
        After Ctrl-C, at the next batch; finished shards are kept.

    Notes
    -----
    Cost: one forward pass up to the last site for each batch, and one short one to begin with; to go
    on, also reading and hashing the texts and the shards that are there.
    """
    part = _part(part)
    settings = _settings(model, sites, dtype, context, batch_size, shard_rows, include_bos, seed)
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1; got {max_tokens}")

    def read() -> Corpus:
        return Corpus(
            model, texts, context=settings.context, column=column, include_bos=include_bos, part=part
        )

    share = _share(max_tokens, part)
    folder, corpus, made = Path(out) / settings.hash, None, False
    if not (folder / "config.json").exists():
        corpus = read()
        made = _create(folder, model, settings, part[1], corpus, share)
    config = read_config(folder)
    if config["world_size"] != part[1]:
        raise StoreError(
            f"{folder} was harvested by {config['world_size']} processes; go on with as many, not {part[1]}"
        )
    with locked(folder / manifest_name(*part), create=True), stop_on_interrupt() as stop:
        filling = Filling(model, config, folder, part=part, stop=stop, log=EventLog(log))
        before = filling.recover()
        if before and not resume:
            n_rows = sum(shard.rows for shard in before)
            raise StoreError(
                f"{folder} already holds {n_rows} rows, and resuming is switched off: leave it on to go on from there, "
                "or choose another folder"
            )
        corpus = read() if before or corpus is None else corpus
        corpus.skip(before, str(folder))
        verify_shards(folder, before, progress=progress, stop=stop)
        try:
            filling.fill(corpus, before, share, progress)
        except StoreError:
            if made and part[1] == 1:  # other processes may be at work in a shared folder
                _discard_empty(folder)
            raise
    return ActivationStore(folder, partial=part[1] > 1)


def _part(part: tuple[int, int] | None) -> tuple[int, int]:
    if part is None:
        given = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
        try:
            part = (0, 1) if None in given else (int(str(given[0])), int(str(given[1])))
        except ValueError as error:
            raise InputError(f"RANK and WORLD_SIZE in the environment must be numbers: {given}") from error
    rank, world_size = part
    if not 0 <= rank < world_size:
        raise InputError(f"part is (rank, world_size) with 0 <= rank < world_size; got {part}")
    return rank, world_size


def _share(max_tokens: int | None, part: tuple[int, int]) -> int | None:
    return None if max_tokens is None else max_tokens // part[1] + (part[0] < max_tokens % part[1])


def _settings(
    model: Model,
    sites: Any,
    dtype: Any,
    context: int | None,
    batch_size: int,
    shard_rows: int | None,
    bos: bool,
    seed: int,
) -> Settings:
    found = model.find(sites)
    for site in found:
        if site.axes is not None and "query" in site.axes:
            raise SiteError(
                f"{site} has axes {list(site.axes)}: it has no row per token, so a store cannot hold it"
            )
    limit = model.n_ctx
    context = min(limit or CONTEXT, CONTEXT) if context is None else context
    if context < 2 or (limit is not None and context > limit):
        raise InputError(f"context must be at least 2 and at most the model's {limit}; got {context}")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    if shard_rows is not None and shard_rows < context:
        raise InputError(f"shard_rows must hold a window: at least context={context}; got {shard_rows}")
    return Settings(
        schema=SCHEMA,
        weights_sha256=model.fingerprint(),
        config_sha256=model.describe().get("config_sha256"),
        backend=model.backend,
        model_dtype=str(model.dtype).removeprefix("torch."),
        tokenizer_sha256=tokenizer_sha256(model.tokenizer),
        sites=tuple(str(site) for site in found),
        dtype=dtype_name(model.dtype if dtype is None else dtype),
        context=context,
        batch_size=batch_size,
        shard_rows=shard_rows,
        include_bos=bool(bos),
        seed=int(seed),
    )


def tokenizer_sha256(tokenizer: Any) -> str | None:
    """SHA-256 of what decides how texts become ids, or None without a tokenizer."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state: Any = tokenizer.get_vocab()
    else:
        state = json.loads(backend.to_str())
        state = {
            key: value for key, value in state.items() if key not in ("padding", "truncation")
        }  # change in use
    special = [getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
    return hashlib.sha256(json_bytes([special, state])).hexdigest()


def _discard_empty(folder: Path) -> None:
    """Take away the store that this call made if it holds no row and nothing that is not the store's."""
    manifest = folder / manifest_name(0, 1)
    known = {"config.json", manifest.name, shard_name(0, (0, 1))}
    with suppress(OSError):
        if manifest.stat().st_size or not {file.name for file in folder.iterdir()} <= known:
            return
        # One rename, so that nobody ever finds half of it.
        shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.tmp")))


def _create(
    folder: Path, model: Model, settings: Settings, world_size: int, corpus: Corpus, max_rows: int | None
) -> bool:
    """Find out what the sites' rows look like, and write the store's configuration if nobody else has.

    Returns whether it was written. Nothing is made if ``max_rows`` rows cannot fit.
    """
    shapes, rows = _probe(model, settings, corpus.sample())
    layout = Layout(sites=tuple(shapes.items()), dtype=settings.dtype)
    shard_rows = settings.shard_rows or max(settings.context, min(65536, SHARD_BYTES // layout.row_bytes))
    config = {
        "schema": SCHEMA,
        "hash": settings.hash,
        "identity": json.loads(json_bytes(asdict(settings))),
        "sites": [{"name": name, "shape": list(shape)} for name, shape in shapes.items()],
        "rows": rows,
        "dtype": settings.dtype,
        "shard_rows": shard_rows,
        "world_size": world_size,
        "provenance": provenance(model, seed=settings.seed),
    }
    require_rows(folder, layout, max_rows)
    ensure_folder(folder)
    with locked(folder, wait=True):
        sweep_temporaries(folder, lambda name: name == "config.json")
        missing = not (folder / "config.json").exists()
        if missing:
            if any(folder.glob("manifest*.jsonl")):
                raise StoreError(
                    f"{folder} has a manifest but no config.json: it is damaged; use another folder"
                )
            write_json_atomic(folder / "config.json", sealed(config))
    return missing


def _probe(model: Model, settings: Settings, ids: np.ndarray) -> tuple[dict[str, tuple[int, ...]], str]:
    """The shape of one row of each site, and what a row is: a ``token`` or a ``sequence``."""
    ids = ids[:8]
    seen: dict[str, Tensor] = {}
    two = Tokens.full(torch.from_numpy(np.stack([ids, ids])))
    with seeded(f"{settings.seed} probe", model.device):
        model.capture(two, settings.sites, sink=lambda site, tensor: seen.__setitem__(str(site), tensor))
    shapes, kinds = {}, {}
    for name in settings.sites:
        shape = tuple(seen[name].shape)
        if not seen[name].is_floating_point():
            raise SiteError(f"{name} holds {seen[name].dtype}; a store holds floating-point activations")
        if len(shape) >= 3 and shape[:2] == (2, len(ids)):
            shapes[name], kinds[name] = shape[2:], "token"
        elif len(shape) == 2 and shape[0] == 2:
            shapes[name], kinds[name] = shape[1:], "sequence"
        else:
            raise SiteError(
                f"{name} has shape {list(shape)} for 2 inputs of {len(ids)} tokens: no row per token or per input"
            )
    if len(set(kinds.values())) > 1:
        raise SiteError(f"these sites have rows of different kinds and cannot share a store: {kinds}")
    return shapes, next(iter(kinds.values()))
