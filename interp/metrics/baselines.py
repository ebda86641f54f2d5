"""Baselines: the same network before training, the same tokens without their order.

Half of what the literature says about the geometry of language models is true of untrained ones.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from interp.errors import InputError, nearest
from interp.models.inputs import as_tokens
from interp.results import Result
from interp.tokens import Tokens

__all__ = ["Baseline", "baselined", "beside", "random_init", "shuffled_tokens"]

Baseline = Literal["random_init", "shuffled_tokens"] | None
Kind = TypeVar("Kind", bound=Result)
_KNOWN = ("random_init", "shuffled_tokens")


def baselined(model: Any, tokens: Any, baseline: Baseline, *, seed: int = 0) -> tuple[Any, Any]:
    """The model and tokens of a baseline; as they are for None."""
    if baseline is None:
        return model, tokens
    if baseline == "random_init":
        return random_init(model, seed=seed), tokens
    if baseline == "shuffled_tokens":
        return model, shuffled_tokens(model, tokens, seed=seed)
    raise InputError(
        f"baseline={baseline!r}{nearest(str(baseline), _KNOWN)}; it is one of {', '.join(_KNOWN)}"
    )


def beside(result: Kind, other: Result, baseline: Baseline) -> Kind:
    """``result`` with the value of the same measurement of a baseline as its chance level, matched by ``ticks``."""
    value = np.asarray(other.value, dtype=float)
    if result.ticks != other.ticks and value.ndim == 1:
        found = dict(zip(other.ticks[0], value, strict=True))
        value = np.array([found.get(tick, np.nan) for tick in result.ticks[0]])
    text, _, ratio = result.convention.partition("; n/d")
    said = text.partition("; chance")[0]
    known = {key: held for key, held in result.provenance.items() if key != "no_chance"}
    return replace(
        result,
        chance=value if value.ndim else float(value),
        convention=f"{said}; chance: {baseline}{ratio and '; n/d' + ratio}",
        provenance={**known, "baseline": baseline},
    )


def random_init(model: Any, *, seed: int = 0) -> Any:
    """The same architecture with fresh weights, behind the same backend; the model itself is not touched.

    A transformers model is made anew from its configuration; any other module is copied, its parts' own
    ``reset_parameters`` are called, and a parameter that no part resets has its entries permuted.
    """
    import interp

    module = model.module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if hasattr(module, "config") and hasattr(module, "init_weights"):
            fresh = type(module)(copy.deepcopy(module.config)).to(device=model.device, dtype=model.dtype)
        else:
            fresh = _reset(copy.deepcopy(module))
    return interp.load(fresh.eval(), tokenizer=model.tokenizer)


def _reset(module: nn.Module) -> nn.Module:
    done: set[int] = set()
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
            done |= {id(p) for p in part.parameters(recurse=False)}
    with torch.no_grad():
        for parameter in module.parameters():
            if id(parameter) not in done:
                parameter.copy_(parameter.flatten()[torch.randperm(parameter.numel())].view_as(parameter))
    return module


def shuffled_tokens(model: Any, tokens: Any, *, seed: int = 0) -> Tokens:
    """The real tokens of all sequences in random order: the same unigrams and lengths, no structure.

    A first token that all sequences share (a beginning mark) stays where it is.
    """
    given = tokens if isinstance(tokens, Tokens) else as_tokens(model, tokens)
    ids, moved = given.ids.clone(), given.mask.clone()
    first = ids[:, 0]
    if len(first) > 1 and bool((first == first[0]).all()) and bool(given.mask[:, 0].all()):
        moved[:, 0] = False
    values = ids[moved]
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    ids[moved] = values[order.to(values.device)]
    return Tokens(ids=ids, mask=given.mask, show=given.show)
