"""The one interface of a model, whichever library runs it.

:class:`Model` holds everything a user calls; what it stands on, and what an adapter fills in, is
:class:`interp.models.network.Network`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations import Activations
from interp.capture import Keep, Positions, Sink, capture, gradients, logits
from interp.edits import Edit
from interp.frames import Frame, Inputs
from interp.models.audit import AuditResult, audit
from interp.models.generation import Sampling, generate
from interp.models.inputs import frames_of
from interp.models.network import Network
from interp.models.text import texts_to_tokens
from interp.showing import Shown, brief
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["Model"]


class Model(Shown, Network):
    """A network with named sites: capture, edits, gradients, generation, provenance."""

    def tokens(
        self,
        texts: str | Sequence[str] | Sequence[Sequence[int]],
        *,
        prepend_bos: bool | None = None,
        truncate: bool = False,
        padding_side: str = "right",
    ) -> Tokens:
        """Texts (or lists of ids) as Tokens, padded on ``padding_side``.

        ``prepend_bos`` None puts the tokenizer's beginning-of-sequence token first where it has one and the
        model is causal; encoders get the tokenizer's own special tokens.

        Raises
        ------
        InputError
            For an empty text, a text without tokenizer, an id outside the vocabulary, or a prompt longer than
            the context (unless ``truncate``, which keeps its beginning).
        """
        return texts_to_tokens(
            self, texts, prepend_bos=prepend_bos, truncate=truncate, padding_side=padding_side
        )

    def frames(self, tokens: Any, batch_size: int | None) -> Iterator[tuple[Inputs, Frame]]:
        """The input checked and cut into batches, each with its frame."""
        return frames_of(self, tokens, batch_size)

    def capture(
        self,
        tokens: Any,
        sites: str | Site | Sequence[str | Site],
        *,
        edits: Sequence[Edit] = (),
        positions: Positions = None,
        batch_size: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        sink: Sink | None = None,
    ) -> Activations:
        """What the model holds at ``sites``.

        Parameters
        ----------
        tokens
            Tokens, texts, or ids [batch, pos]; for a plain module whatever its forward takes (a tensor,
            or a tuple of arguments).
        sites
            Names or globs, for example ``"blocks.*.hook_resid_post"``.
        edits
            Edits in force during the pass; a capture at an edited site shows the edited tensor.
        positions
            Columns to keep: a number, several, a slice, or ``"last"``; all by default.
        batch_size
            Rows a pass; all at once by default. Batches are joined along the first axis.
        dtype, device
            What floats are kept as, and where; as the model holds them by default.
        sink
            Called with each site and tensor, batch by batch, instead of keeping them; the Activations
            returned are then empty along the batch.

        Returns
        -------
        Activations
            Without gradients. Cost: at most one forward pass per batch; it stops behind the last site, and
            logits are computed only if asked for.
        """
        keep = Keep(positions=positions, dtype=dtype, device=device)
        return capture(self, tokens, sites, edits=edits, keep=keep, batch_size=batch_size, sink=sink)

    def logits(
        self, tokens: Any, *, edits: Sequence[Edit] = (), batch_size: int | None = None
    ) -> Float[Tensor, "batch *pos d_vocab"]:
        """The model's output under ``edits``, without gradients. Cost: one forward pass per batch."""
        return logits(self, tokens, edits=edits, batch_size=batch_size)

    def gradients(
        self,
        tokens: Any,
        metric: Callable[[Tensor], Tensor],
        sites: str | Site | Sequence[str | Site],
        *,
        edits: Sequence[Edit] = (),
    ) -> tuple[Activations, Activations]:
        """Values at ``sites`` and the gradients of ``metric(logits).sum()`` there.

        ``metric`` maps logits to one number per example; examples do not mix, so row i of a gradient is
        that of example i's number. Cost: one forward and one backward pass, whatever the number of sites.
        """
        return gradients(self, tokens, metric, sites, edits=edits)

    def generate(
        self,
        tokens: Any,
        *,
        max_new_tokens: int,
        edits: Sequence[Edit] = (),
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
        stop_at_eos: bool = True,
        use_cache: bool = True,
    ) -> Tokens:
        """Continue each row by ``max_new_tokens`` tokens under ``edits``, with the key-value cache.

        Greedy at ``temperature`` 0, else sampled with ``seed``. Rows of different lengths must be padded on
        the left. Cost: one pass over the prompt and one short pass per new token.
        """
        sampling = Sampling(temperature=temperature, top_k=top_k, seed=seed, stop_at_eos=stop_at_eos)
        return generate(
            self, tokens, max_new_tokens=max_new_tokens, edits=edits, sampling=sampling, use_cache=use_cache
        )

    def audit(self, tokens: Any = None, sites: Any = None) -> AuditResult:
        """Perturb every site and see what happens: does it fire, do the logits move, does a gradient arrive.

        Cost: three forward passes and a backward pass per site, on a short input.
        """
        return audit(self, tokens=tokens, sites=sites)

    def width(self, site: str | Site) -> int:
        """The size of a site's last axis (from one short pass, remembered)."""
        (found,) = self.find(site)
        if found not in self._widths:
            probe = self.probe()
            self._widths[found] = self.capture(probe, found)[found].shape[-1]
        return self._widths[found]

    def _facts(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "name": self.name,
            "backend": self.backend,
            "class": type(self.module).__name__,
        }
        if self.anatomy is not None:
            said |= {"family": self.anatomy.family, "layers": self.n_layers, "d_model": self.d_model}
            said |= {"heads": self.n_heads, "context": self.n_ctx, "vocabulary": self.d_vocab}
        said |= {"parameters": sum(p.numel() for p in self.module.parameters()), "sites": len(self.sites)}
        said |= {"dtype": str(self.dtype).removeprefix("torch."), "device": str(self.device)}
        # hashing all weights is no work for a line of text
        return said | ({} if self._fingerprint is None else {"weights": self._fingerprint[:12]})

    def __repr__(self) -> str:
        size = (
            f"{self.n_layers} layers, d_model {self.d_model}" if self.anatomy else type(self.module).__name__
        )
        return f"Model({brief(self.name)!r}, {self.backend}, {size}, {len(self.sites)} sites)"
