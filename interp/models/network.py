"""What the passes ask of a model: its sites, its sizes, one forward pass with visitors, where it comes from.

Capture, generation and audit are written against :class:`Network`; :class:`interp.models.base.Model` adds them as
methods, and adapters (``hooked.py``, ``hf.py``, ``tlens.py``, ``nns.py``) fill in :meth:`Network.run`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ModelError, SiteError, nearest
from interp.frames import Frame, Inputs
from interp.models.anatomy import Anatomy
from interp.models.running import Visit
from interp.sites import Site, SiteTable
from interp.tokens import Tokens

__all__ = ["Network"]


class Network(ABC):
    """A network with named sites, and how one pass is run with visitors at them.

    Attributes
    ----------
    name, backend
        What it was loaded as, and which library runs it (``torch``, ``transformers``,
        ``transformer_lens``, ``nnsight``).
    module
        The network itself, never rewritten and never left hooked.
    anatomy
        Which modules write to and read from the residual stream; None if the architecture is unknown.
    sites
        The sites it answers to, in forward order (module paths are found too, see :meth:`find`).
    """

    backend: str = "torch"
    can_cache: bool = False
    """Whether passes can continue a sequence with a key-value cache."""

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        anatomy: Anatomy | None,
        table: SiteTable,
        tokenizer: Any = None,
    ) -> None:
        self.module = module
        self.name = name
        self.anatomy = anatomy
        self.sites = table
        self.tokenizer = tokenizer
        self.inert: dict[Site, str] = {}
        """Sites that can be read but whose edits do nothing here, with the reason."""
        self.overwritten: set[Site] = set()
        """Sites whose tensors the model overwrites in place; captures keep copies of them."""
        self._widths: dict[Site, int] = {}
        self._parameter = next(module.parameters(), torch.empty(0))
        self._fingerprint: str | None = None
        self._fingerprinted = -1

    # -- what an adapter provides -----------------------------------------------------------------

    @abstractmethod
    def run(
        self,
        inputs: Inputs,
        frame: Frame,
        visits: Sequence[Visit],
        *,
        wanted: Collection[Site] | None,
        cache: Any = None,
    ) -> Any:
        """One forward pass with the visitors in place: the logits, or None if it was stopped after ``wanted``.

        With ``cache`` (a :class:`~interp.models.generation.Cache`) the pass continues a sequence.
        """

    # -- what it is -------------------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        """How many blocks the residual stream passes; 0 where the anatomy is unknown."""
        return len(self.anatomy.blocks) if self.anatomy else 0

    @property
    def d_model(self) -> int | None:
        """Width of the residual stream, None where the anatomy is unknown."""
        return self.anatomy.d_model if self.anatomy else None

    @property
    def n_heads(self) -> int | None:
        """Attention (query) heads of the first layer that has any, else None."""
        attn = [block.attn for block in self.anatomy.blocks if block.attn] if self.anatomy else []
        return attn[0].n_heads if attn else None

    @property
    def causal(self) -> bool:
        """Whether position t sees only positions up to t (taken as true where the anatomy is unknown)."""
        return self.anatomy is None or self.anatomy.causal

    @property
    def n_ctx(self) -> int | None:
        """The longest sequence it takes, None if it is not limited."""
        return None

    @property
    def d_vocab(self) -> int | None:
        """How many token ids it takes, None if its input is not token ids."""
        if self.anatomy is None:
            return None
        embed = self.module.get_submodule(self.anatomy.embed)
        return embed.num_embeddings if isinstance(embed, nn.Embedding) else None

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the first parameter."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the first floating-point parameter."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    @property
    def state_version(self) -> int:
        """Another number after every write in place to a weight or buffer: what was found out before may be stale."""
        return sum(tensor._version for tensor in self.module.state_dict().values())

    def fingerprint(self) -> str:
        """sha256 over the names, shapes, types and bytes of all weights (computed once)."""
        state = self.state_version
        if self._fingerprint is None or state != self._fingerprinted:  # the weights may have been written to
            self._fingerprinted = state
            digest = hashlib.sha256()
            for name, tensor in sorted(self._weights().items()):
                digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
                flat = tensor.detach().to("cpu").contiguous().view(-1)
                if flat.numel():
                    digest.update(flat.view(torch.uint8).numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _weights(self) -> Mapping[str, Tensor]:
        return self.module.state_dict()

    def describe(self) -> dict[str, Any]:
        """Where it comes from, for provenance: JSON-able."""
        return {
            "name": self.name,
            "backend": self.backend,
            "class": type(self.module).__name__,
            "family": self.anatomy.family if self.anatomy else None,
            "n_params": sum(p.numel() for p in self.module.parameters()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "weights_sha256": self.fingerprint(),
            "config_sha256": _config_sha(getattr(self.module, "config", None)),
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "n_heads": self.n_heads,
            "n_ctx": self.n_ctx,
            "d_vocab": self.d_vocab,
        }

    # -- sites ------------------------------------------------------------------------------------

    def find(self, sites: str | Site | Sequence[str | Site]) -> tuple[Site, ...]:
        """The sites that names and globs ask for, in forward order; an unknown one is a SiteError with the nearest."""
        return self.sites.find(sites)

    def require_causal(self, site: Site) -> None:
        """Raise SiteError if edits at ``site`` are known to do nothing in this model."""
        reason = self.inert.get(site.whole)
        if reason:
            raise SiteError(f"{site} cannot be edited on {self.name} ({self.backend}): {reason}")

    def probe(self) -> Any:
        """A short valid input for self-checks."""
        if self.d_vocab is None:
            raise ModelError(f"{self.name}: its input is not token ids, so it cannot be probed without one")
        length = min(4, self.n_ctx or 4)
        ids = torch.arange(2 * length).view(2, length) * 7 % self.d_vocab
        return Tokens.full(ids)

    # -- parts ------------------------------------------------------------------------------------

    def sequence(self, visits: Sequence[Visit]) -> list[Visit]:
        """Visits in forward order; at one place the given order holds, captures behind the edits."""
        if len(visits) < 2:
            return list(visits)
        return sorted(visits, key=lambda visit: (self.rank(visit[0]), getattr(visit[1], "reads_only", False)))

    def rank(self, site: Site) -> int:
        """Where the pass reaches ``site``."""
        return self.sites.rank(site)

    def submodule(self, path: str) -> nn.Module:
        """A module by path; unknown ones are a ModelError with the nearest."""
        try:
            return self.module.get_submodule(path)
        except AttributeError:
            names = [name for name, _ in self.module.named_modules()]
            raise ModelError(f"no module {path!r}{nearest(path, names)}") from None


def _config_sha(config: Any) -> str | None:
    as_dict = getattr(config, "to_dict", None)
    if as_dict is None:
        return None
    held = {k: v for k, v in as_dict().items() if not k.startswith("_")}
    return hashlib.sha256(json.dumps(held, sort_keys=True, default=str).encode()).hexdigest()
