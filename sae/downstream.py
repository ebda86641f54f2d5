"""The end-to-end loss: what a model says when it reads on from what the coder wrote, beside what it says by itself.

The rows that the coder writes enter the model as constants, and the gradient of the loss at the site comes back by
:meth:`interp.models.base.Model.gradients`; the inner product of the two has, by the chain rule, the gradient of the
loss in every weight of the coder. So nothing of the model is rewritten, and any backend will do.

References: Braun et al. 2024, "Identifying functionally important features with end-to-end sparse dictionary
learning", eq. 3 (their KL term).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.edits import replace
from interp.errors import InputError
from interp.showing import Shown
from sae.data import batch_indices

__all__ = ["Through"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Through(Shown):
    """Texts that a model reads with the coder's rows in place of its own, for the end-to-end loss.

    Parameters
    ----------
    model
        A model of the toolkit.
    tokens
        Tokens or ids [batch, pos]; strings are tokenised once.
    site, target
        Where the coder reads, and where its rows are put; the same site unless ``target`` names another (transcoders).
    batch
        Texts a step, over all processes. Cost of a step: three forward passes and a backward one over them.
    include_first
        Also replace the first position of each text, whose activations are often of another size altogether.
    """

    model: Any
    tokens: Any
    site: Any
    target: Any = None
    batch: int = 4
    include_first: bool = False

    def __post_init__(self) -> None:
        if len(self.tokens) < self.batch or self.batch < 1:
            raise InputError(
                f"there are {len(self.tokens)} texts for the end-to-end loss and {self.batch} a step"
            )
        if not isinstance(self.tokens, Tensor) and not hasattr(self.tokens, "ids"):
            object.__setattr__(self, "tokens", self.model.tokens(list(self.tokens), truncate=True))

    def fingerprint(self) -> str:
        """Of the model, the texts and the sites."""
        ids = self.tokens if isinstance(self.tokens, Tensor) else self.tokens.ids
        head = f"{self.model.fingerprint()},{self.site},{self.target},{self.batch},{self.include_first};"
        return hashlib.sha256(head.encode() + ids.cpu().contiguous().numpy().tobytes()).hexdigest()

    def term(
        self,
        rebuilt: Callable[[Tensor], Tensor],
        step: int,
        *,
        seed: int,
        loss: str,
        peers: Any,
    ) -> tuple[Float[Tensor, ""], float]:
        """A number whose gradient is that of the loss of this process's texts; and the loss, nats a token.

        ``rebuilt`` maps rows [sample, d] to what the coder makes of them, differentiable in its weights.
        ``loss``: ``"kl"``, from what the model says by itself to what it says now; ``"ce"``, of the next token.
        """
        picked = peers.share(batch_indices(len(self.tokens), self.batch, step, seed))
        tokens = self.tokens[picked] if isinstance(self.tokens, Tensor) else self.tokens.select(picked)
        target = self.site if self.target is None else self.target
        acts = self.model.capture(tokens, list(dict.fromkeys((str(self.site), str(target)))))
        real = _real(acts, acts[target])
        kept = real if self.include_first else real & (real.cumsum(1) > 1)
        ids = tokens if isinstance(tokens, Tensor) else tokens.ids
        judged = real if loss == "kl" else _has_next(real)
        n_tokens = peers.total(int(judged.sum()))
        plain = self.model.logits(tokens).log_softmax(-1) if loss == "kl" else None

        def cost(logits: Tensor) -> Tensor:
            said = logits.log_softmax(-1)
            if plain is not None:
                each = (plain.exp() * (plain - said)).sum(-1)
            else:
                each = -said[:, :-1].gather(2, ids[:, 1:, None].to(said.device))[..., 0]
                each = torch.nn.functional.pad(each, (0, 1))
            return (each * judged.to(each.device)).sum(1) / n_tokens

        own = acts[target]
        written = rebuilt(acts[self.site][kept].flatten(1))
        shown = own.clone()
        shown[kept] = written.detach().to(own.dtype).view_as(shown[kept])
        total = own.new_zeros(())

        def kept_cost(logits: Tensor) -> Tensor:
            value = cost(logits)
            total.add_(value.detach().sum())
            return value

        _, grads = self.model.gradients(tokens, kept_cost, target, edits=[replace(target, shown)])
        pull = grads[target][kept].flatten(1).to(written.dtype)
        return (written * pull).sum(), float(total)


def _real(acts: Any, value: Tensor) -> Bool[Tensor, "batch pos"]:
    if value.ndim < 3:
        raise InputError("the end-to-end loss needs a site with positions")
    if acts.mask is None:
        return torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
    return acts.mask.to(value.device)


def _has_next(real: Tensor) -> Bool[Tensor, "batch pos"]:
    """Positions whose next one is a real token too."""
    return real & torch.nn.functional.pad(real[:, 1:], (0, 1))
