"""The networks that ship with the toolkit, by name: ``interp.load("group:C59")``, ``interp.load("planted:backup")``.

One registry for all of them. A family is a module of this package with two functions: ``names()``, the names it
answers to, and ``make(name)``, the :class:`Embedded` of that name. Families are imported when they are asked for.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from interp.errors import CheckError, InputError, ModelError, nearest
from interp.showing import Shown
from interp.tokens import Tokens

if TYPE_CHECKING:
    from interp.tasks.task import Task

__all__ = ["IGNORE", "Embedded", "Sample", "embedded", "last", "names", "shipped", "shipped_stems"]

WEIGHTS = Path(__file__).parent / "weights"
IGNORE = -100
"""The label of a token that has none."""

FAMILIES = ("mini", "group_networks", "induction", "planted_circuits", "superposition")
"""The modules that hold families of networks, in the order in which their names are listed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Sample(Shown):
    """Inputs of an embedded network's own kind, with all that is known about them."""

    tokens: Tokens
    labels: Mapping[str, Int64[Tensor, "batch pos"]] = field(default_factory=dict)
    """Per token, :data:`IGNORE` where a token has none. ``"answer"`` is what the network should say there."""
    source: str
    """One phrase: ``"100 of its 900 inputs 'a b ='"``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Embedded(Shown, ABC):
    """A network that ships with the toolkit, the inputs it was made for, and the labels that are known for them.

    A family says in a subclass what its tokens are called (:attr:`strings`), what a report should tell of it
    (:attr:`notes`), and draws :meth:`inputs` with their :meth:`labels`; one whose labels do not follow from the ids
    alone, or whose inputs differ in length, draws whole samples instead (:meth:`sample`).
    """

    name: str
    module: nn.Module
    card: Mapping[str, Any]
    """How the weights came to be, and what was measured of them: JSON-able."""
    tokenizer: Any = None
    """A tokenizer, if the network reads texts."""

    @property
    @abstractmethod
    def strings(self) -> tuple[str, ...]:
        """What each token id is called."""

    @property
    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """Sentences for the head of a report."""

    @abstractmethod
    def inputs(self, n: int, *, seed: int = 0) -> Shaped[Tensor, "batch *pos"]:
        """``n`` inputs, or as many different ones as there are."""

    def labels(self, ids: Int64[Tensor, "batch pos"]) -> dict[str, Int64[Tensor, "batch pos"]]:
        """What is known about each token."""
        return {}

    def sample(self, n_tokens: int, *, seed: int = 0) -> Sample:
        """Inputs of about ``n_tokens`` tokens in all, with their labels.

        Raises
        ------
        InputError
            The network takes no tokens.
        """
        ids = self.inputs(1, seed=seed)
        if ids.is_floating_point():
            raise InputError(
                f"{self.name!r} takes feature vectors, not tokens: draw them with .inputs(n) and look inside with "
                "model.capture"
            )
        ids = self.inputs(max(1, n_tokens // ids.shape[1]), seed=seed)
        strings = self.strings
        tokens = Tokens.full(ids, show=lambda token: strings[token])
        return Sample(tokens=tokens, labels=self.labels(ids), source=self._source(len(ids)))

    def task(self, n: int = 64, *, seed: int = 0) -> Task | None:
        """``n`` pairs of prompts of what it was made to do; None where it has no such task."""
        return None

    def _source(self, n: int) -> str:
        return f"{n} of its own inputs"


def last(ids: Int64[Tensor, "batch pos"], values: Int64[Tensor, "batch"]) -> Int64[Tensor, "batch pos"]:
    """Labels that only the last position of each row has."""
    labels = torch.full_like(ids, IGNORE)
    labels[:, -1] = values
    return labels


def shipped(
    name: str, stem: str, build: Callable[[Mapping[str, Any]], nn.Module]
) -> tuple[nn.Module, dict[str, Any]]:
    """The module that ``build`` makes from the card ``<stem>.json``, with the weights beside it, and the card.

    Raises
    ------
    CheckError
        The weights do not fit their card (a damaged installation).
    """
    from safetensors.torch import load_file

    try:
        card = json.loads((WEIGHTS / f"{stem}.json").read_text("utf-8"))
        module = build(card)
        state = load_file(WEIGHTS / f"{stem}.safetensors")
        module.load_state_dict({key: value.float() for key, value in state.items()})
    except Exception as error:  # noqa: BLE001  (safetensors, json and torch raise several kinds for one damage)
        raise CheckError(
            f"the weights of {name!r} do not fit their card: {error}; reinstall the toolkit"
        ) from error
    return module.eval(), card


def shipped_stems(pattern: str) -> tuple[str, ...]:
    """Names of the weight files that match a glob, without their ending, sorted."""
    return tuple(sorted(path.stem for path in WEIGHTS.glob(f"{pattern}.safetensors")))


@functools.cache
def _homes() -> dict[str, Any]:
    """The module of every name."""
    modules = [import_module(f"interp.toys.{family}") for family in FAMILIES]
    return {name: module for module in modules for name in module.names()}


def names() -> tuple[str, ...]:
    """The names of all shipped networks."""
    return tuple(_homes())


def embedded(name: str) -> Embedded:
    """The shipped network called ``name``, such as ``"group:C59"``; a fresh copy at each call.

    Raises
    ------
    ModelError
        No network of that name ships; the message says the nearest and all names.
    CheckError
        The shipped weights do not fit their card (a damaged installation).
    """
    home = _homes().get(name)
    if home is None:
        raise ModelError(
            f"no embedded network {name!r}{nearest(name, names())} (embedded: {', '.join(names())})"
        )
    return home.make(name)
