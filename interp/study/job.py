"""A job that is ready to run: model, material, sites and stations decided, nothing computed yet.

``analysis.py`` runs it, ``planning.py`` says what that would cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.errors import InputError, InterpError
from interp.runs.files import json_bytes
from interp.runs.provenance import provenance
from interp.study.effort import STANDARD, Effort, effort_of
from interp.study.feeding import labels_of, model_of_rows, tokens_of_rows
from interp.study.material import Material, gather
from interp.study.sourcefile import Made, code_of
from interp.study.stations import Station, Study, select

__all__ = ["MAX_TOKENS", "Job", "facts", "layer_sites", "performance", "prepare", "tokenizer_hash"]

MAX_TOKENS = 32_768
"""Tokens studied by default: enough for the spectra of a thousand dimensions, minutes for a small model on a CPU."""
MAX_SITES = 13


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A study that is ready to run: everything decided, nothing computed."""

    model: Any
    material: Material
    stations: tuple[Station, ...]
    sites: tuple[Any, ...]
    seed: int
    effort: Effort = STANDARD
    name: str = ""
    """The embedded network's, if it is one."""
    code: str = ""
    """SHA-256 of what a network of the user's own is written as: its weights do not say how it computes."""
    rows: str = ""
    """SHA-256 of the given inputs, where the tokens are their row numbers."""

    def study(self, out: Path, *, store: Any = None, progress: bool = False) -> Study:
        """What the stations are given."""
        return Study(
            model=self.model, tokens=self.material.tokens, labels=self.material.labels, task=self.material.task,
            store=store, seed=self.seed, out=out, progress=progress, effort=self.effort, name=self.name,
        )  # fmt: skip

    def tokens_hash(self) -> str:
        """SHA-256 of the token ids and their mask; of the inputs too where the ids are row numbers."""
        tokens = self.material.tokens
        digest = hashlib.sha256((str(list(tokens.ids.shape)) + self.rows).encode())
        for part in (tokens.ids, tokens.mask):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def labels_hash(self) -> str:
        """SHA-256 of the labels and their names."""
        digest = hashlib.sha256()
        for name, grid in self.material.labels.items():
            digest.update(name.encode() + grid.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def acts_hash(self) -> str:
        """SHA-256 of what decides the activations: the model, its code, what it reads and where it is read."""
        decided = [self.model.describe(), self.code, self.tokens_hash(), [str(site) for site in self.sites]]
        return hashlib.sha256(json_bytes(decided)).hexdigest()

    def key(self) -> str:
        """A hash of all that decides the numbers; results of an earlier run are taken over only if it is equal."""
        decided = {
            "model": self.model.describe(), "tokens": self.tokens_hash(), "material": self.material.sha256,
            "labels": self.labels_hash(), "seed": self.seed,
            "sites": [str(site) for site in self.sites], "versions": provenance()["versions"],
            "effort": asdict(self.effort), "code": self.code,
        }  # fmt: skip
        return hashlib.sha256(json_bytes(decided)).hexdigest()


def prepare(
    model: Any,
    *,
    texts: Any = None,
    tokens: Any = None,
    inputs: Any = None,
    labels: Mapping[str, Any] | None = None,
    seed: int = 0,
    stations: Sequence[str] | None = None,
    max_tokens: int | None = None,
    seq_len: int | None = None,
    preset: str | Effort = STANDARD,
    code: str = "",
) -> Job:
    """Load the model, find its material, its layer sites and the stations; see ``analysis.analyze``.

    ``code`` is a hash of what a network of the user's own is written as; by default of the classes of its parts.
    """
    if isinstance(model, Made):
        model, inputs, labels, code = model.model, model.inputs, model.labels, model.sha256
    code = code or _own_code(model)
    if seed < 0:
        raise InputError(f"seed = {seed}; the generators take 0 and more")
    effort, chosen = effort_of(preset), select(stations)
    embedded = None
    from interp.toys.collection import embedded as shipped
    from interp.toys.collection import names

    name = model if isinstance(model, str) else getattr(model, "name", None)
    if name in names() and inputs is None:
        embedded = shipped(name)
    most = effort.of(MAX_TOKENS) if max_tokens is None else max_tokens
    rows = ""
    if inputs is not None:
        rows = _rows_hash(inputs)
        if texts is not None or tokens is not None:
            raise InputError("give inputs, texts or tokens: one of them")
        model = model_of_rows(model, inputs)
        tokens = tokens_of_rows(len(inputs), most=most, seed=seed)
    if not hasattr(model, "capture"):
        from interp import load

        model = load(model)
    material = gather(
        model, texts=texts, tokens=tokens, embedded=embedded, seed=seed, max_tokens=most, seq_len=seq_len
    )
    if inputs is not None:
        material = replace(material, source=f"{len(tokens)} given inputs", sha256=rows)
    if labels:
        own = labels_of(labels, material.tokens, by_row=inputs is not None)
        material = replace(material, labels={**own, **material.labels})
    return Job(
        model=model, material=material, stations=chosen, sites=layer_sites(model), seed=seed, effort=effort,
        name="" if embedded is None else embedded.name, code=code, rows=rows,
    )  # fmt: skip


def _own_code(model: Any) -> str:
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    return code_of(module) if isinstance(module, nn.Module) else ""


def _rows_hash(inputs: Any) -> str:
    rows = torch.as_tensor(inputs).detach().cpu().contiguous()
    return hashlib.sha256(str(list(rows.shape)).encode() + rows.numpy().tobytes()).hexdigest()


def layer_sites(model: Any) -> tuple[Any, ...]:
    """The residual stream from the first block's input to the last block's output, at most 13 sites of it.

    A model without such sites gives the outputs of its modules that have one row of features per sample.
    """
    canonical = [site for site in model.sites if site.kind in ("resid_pre", "resid_mid", "resid_post")]
    if not canonical:
        wide = [site for site in model.sites if site.path is not None and _has_width(model, site)]
        return tuple(_spread(wide))
    first = [site for site in canonical if site.kind == "resid_pre"][:1]
    posts = [site for site in canonical if site.kind == "resid_post"]
    mids = [site for site in canonical if site.kind == "resid_mid"]
    if 1 + len(posts) + len(mids) <= MAX_SITES:
        return tuple(sorted([*first, *mids, *posts]))
    return tuple(sorted([*first, *_spread(posts, MAX_SITES - 1)]))


def _has_width(model: Any, site: Any) -> bool:
    try:
        return model.width(site) > 1
    except InterpError:
        return False


def _spread(sites: Sequence[Any], n: int = MAX_SITES) -> list[Any]:
    """At most ``n`` of the sites, evenly spread, the first and the last among them."""
    if len(sites) <= n:
        return list(sites)
    return [sites[round(i * (len(sites) - 1) / (n - 1))] for i in range(n)]


def facts(job: Job) -> list[tuple[str, Any]]:
    """What the head of the report says about model and material."""
    model = job.model
    found = [
        ("Layers", model.n_layers or None), ("Width", model.d_model), ("Heads", model.n_heads),
        ("Vocabulary", model.d_vocab), ("Parameters", model.describe().get("n_params")), ("Backend", model.backend),
        ("Sequences", len(job.material.tokens)), ("Tokens", int(job.material.tokens.mask.sum())),
        ("Preset", job.effort.name), ("Seed", job.seed),
    ]  # fmt: skip
    return [(label, value) for label, value in found if value is not None]


def performance(job: Job) -> list[tuple[str, Any]]:
    """How well the model does what it was made for, on (some of) the material: the first thing a reader should know."""
    tokens = job.material.tokens
    if "answer" in job.material.labels:
        answers = job.material.labels["answer"]
        known = answers != -100
        right = job.model.logits(tokens, batch_size=256).argmax(-1).cpu()[known] == answers[known]
        return [(f"Answers right, n = {int(known.sum())}", f"{right.double().mean():.2%}")]
    anatomy = job.model.anatomy
    if not job.material.natural or job.model.tokenizer is None or anatomy is None or not anatomy.causal:
        return []
    few = tokens[:64]
    logits = job.model.logits(few, batch_size=16)[:, :-1].double().cpu()
    target, real = few.ids[:, 1:], few.mask[:, 1:] & few.mask[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits[real], target[real], reduction="none")
    return [(f"Next-token loss, n = {len(nats)}", f"{nats.mean():.3f} nats")] if len(nats) else []


def tokenizer_hash(model: Any) -> str | None:
    """SHA-256 of the vocabulary and the added tokens, in the order of their ids."""
    vocabulary = getattr(model.tokenizer, "get_vocab", None)
    if vocabulary is None:
        return None
    return hashlib.sha256(
        json_bytes(sorted((index, token) for token, index in vocabulary().items()))
    ).hexdigest()
