"""Alignment: a subspace of one site that carries a variable, found by training on interchanges.

``circuits.align``. The subspace of a base prompt's activation is exchanged for that of a source prompt; if it carries
the variable, the network must answer as the base prompt with the source's value of it would. What is trained can find
what is not used, so the answer is on pairs that were held out, beside random subspaces and the whole site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["Alignment", "align"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Alignment(Result):
    """``value``: interchange accuracy on held-out pairs, the share for which the wanted token is the likeliest of all.

    ``chance`` is that of random subspaces of the same width.
    """

    site: str
    basis: np.ndarray
    """[d, k] orthonormal columns that span the subspace."""
    loss: np.ndarray
    """[step] cross-entropy (nats) of the training pairs drawn."""
    whole: float
    """Interchange accuracy of the whole site: more than a subspace can be expected to reach."""
    untouched: float
    """The same without any interchange."""
    random: np.ndarray
    """[draw] of random subspaces."""

    @property
    def vector(self) -> Float[Tensor, " d"]:
        """The direction, where the subspace is one."""
        if self.basis.shape[1] != 1:
            raise InputError(f"the subspace has {self.basis.shape[1]} dimensions; only one is a direction")
        return torch.from_numpy(self.basis[:, 0])

    def overlap(self, other: np.ndarray) -> float:
        """Share of this subspace that lies in the span of ``other`` [d, m]: mean squared cosine of principal angles."""
        q, _ = np.linalg.qr(np.asarray(other, dtype=np.float64))
        return float(np.square(q.T @ self.basis).sum() / self.basis.shape[1])


def align(
    model: Any,
    task: Any,
    site: str | Site,
    *,
    k: int = 1,
    position: int | str = "last",
    steps: int = 200,
    lr: float = 0.05,
    batch_size: int = 32,
    held_out: float = 0.5,
    n_random: int = 20,
    seed: int = 0,
) -> Alignment:
    """Find ``k`` orthonormal directions whose interchange carries a variable from one prompt to another.

    Parameters
    ----------
    task
        ``(base, source, wanted)``: two sets of prompts and the token id that each base prompt must get once the
        variable is the source's; or a Task whose first wrong answer is what its corrupted prompt asks for (gender,
        number): clean prompts are the bases, corrupted ones the sources.
    site
        Where: [batch, pos, d], one vector a position (heads lie side by side).
    position
        A column, or ``"last"``: each prompt's last token.
    steps, lr, batch_size
        Of Adam, on a free matrix whose orthonormal factor is the basis; pairs a step.
    held_out
        Share of the pairs that only the result is measured on.

    Raises
    ------
    InputError
        Widths, positions or prompts that do not fit, or too few pairs to hold some out.
    SiteError
        An unknown site, or one whose edits do nothing.

    Notes
    -----
    Cost: ``steps`` forward and backward passes of a batch, then 2 + n_random forward passes of the held-out pairs.
    A success says that the subspace can carry the variable there, and not that the network's own runs keep it there
    alone; compare ``whole`` and ``chance``, and other sites and positions.

    References
    ----------
    Geiger et al. 2024, "Finding alignments between interpretable causal variables and distributed neural
    representations", eq. 1-3.
    """
    base, source, wanted = _pairs(task)
    (at,) = model.find(site)
    model.require_causal(at)
    columns = _columns(base, position)
    trial = _Trial(model, at, base, source, wanted, columns)
    d = trial.source.shape[1]
    n_train = round(len(base) * (1 - held_out))
    if not 1 <= k <= d:
        raise InputError(f"k={k}; {at} is {d} wide")
    if not 0 < n_train < len(base):
        raise InputError(
            f"held_out={held_out} of {len(base)} pairs leaves none to train or none to measure on"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(base), generator=generator)
    train, test = order[:n_train], order[n_train:]
    free = torch.randn(d, k, generator=generator).to(trial.source)
    basis, losses = _trained(
        trial, free, train, steps=steps, lr=lr, batch_size=batch_size, generator=generator
    )
    drawn = [torch.linalg.qr(torch.randn(d, k, generator=generator).to(basis)).Q for _ in range(n_random)]
    chance = np.array([trial.right(q, test).mean() for q in drawn])
    right = trial.right(basis, test)
    share = float(right.mean())
    return Alignment(
        name="interchange accuracy",
        value=share,
        stderr=float((share * (1 - share) / len(right)) ** 0.5),
        n=len(right),
        convention=f"{k} of {d} directions of {at}, trained on {n_train} other pairs; right: likeliest of all tokens",
        chance=float(chance.mean()) if drawn else None,
        provenance={
            "model": model.name, "backend": model.backend, "site": str(at), "position": position,
            "k": k, "steps": steps, "lr": lr, "seed": seed,
        },
        site=str(at),
        basis=basis.double().cpu().numpy(),
        loss=np.asarray(losses),
        whole=float(trial.right(torch.eye(d).to(basis), test).mean()),
        untouched=float(trial.right(basis[:, :0], test).mean()),
        random=chance,
    )  # fmt: skip


def _pairs(task: Any) -> tuple[Tokens, Tokens, Tensor]:
    if hasattr(task, "wrong") and hasattr(task, "clean"):
        if not task.wrong.shape[1] or bool((task.wrong[:, 0] < 0).any()):
            raise InputError(f"task {task.name!r} has no wrong answers: say which token is wanted")
        return task.clean, task.corrupted, task.wrong[:, 0]
    if not (isinstance(task, tuple | list) and len(task) == 3):
        raise InputError(f"give a Task or (base, source, wanted); got {type(task).__name__}")
    base, source = (t if isinstance(t, Tokens) else Tokens.full(t) for t in task[:2])
    wanted = torch.as_tensor(task[2])
    if base.ids.shape != source.ids.shape or wanted.shape != (len(base),):
        raise InputError(
            f"base {list(base.ids.shape)}, source {list(source.ids.shape)} and wanted {list(wanted.shape)} do not "
            "belong together: a row of each per pair"
        )
    return base, source, wanted.long()


def _columns(tokens: Tokens, position: int | str) -> Tensor:
    n = tokens.ids.shape[1]
    if position == "last":
        return tokens.last
    if isinstance(position, str) or not -n <= position < n:
        raise InputError(f"position={position!r}; it is 'last' or one of the {n} columns")
    return torch.full((len(tokens),), position % n)


class _Trial:
    """Runs of base prompts with a subspace exchanged for the source's."""

    def __init__(
        self, model: Any, site: Site, base: Tokens, source: Tokens, wanted: Tensor, columns: Tensor
    ) -> None:
        self.model, self.site, self.base, self.wanted, self.columns = model, site, base, wanted, columns
        value = model.capture(source, site)[site]
        if value.ndim < 3:
            raise InputError(f"{site} holds {list(value.shape)}; need [batch, pos, d]")
        self.source = value.flatten(2)[torch.arange(len(base)), columns.to(value.device)]

    def logits(self, basis: Tensor, rows: Tensor) -> Tensor:
        """[row d_vocab] at every base prompt's last token."""
        tokens, columns, source = self.base.select(rows), self.columns[rows], self.source[rows]
        each = torch.arange(len(rows))

        def exchange(value: Tensor) -> Tensor:
            flat = value.flatten(2).clone()
            now = flat[each, columns.to(flat.device)]
            flat[each, columns.to(flat.device)] = now + (source - now) @ basis @ basis.T
            return flat.view_as(value)

        ((inputs, frame),) = self.model.frames(tokens, None)
        logits = self.model.run(inputs, frame, [(self.site, exchange)], wanted=None)
        return logits[each, tokens.last.to(logits.device)]

    @torch.no_grad()
    def right(self, basis: Tensor, rows: Tensor) -> np.ndarray:
        """[row] whether the wanted token is the likeliest."""
        best = self.logits(basis, rows).argmax(-1).cpu()
        return (best == self.wanted[rows].cpu()).double().numpy()


def _trained(
    trial: _Trial,
    free: Tensor,
    rows: Tensor,
    *,
    steps: int,
    lr: float,
    batch_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, list[float]]:
    """The basis [d, k] and the loss of every step."""
    free.requires_grad_(True)
    adam, losses = torch.optim.Adam([free], lr=lr), []
    asking = [p for p in trial.model.module.parameters() if p.requires_grad]
    for p in asking:
        p.requires_grad_(False)
    try:
        for _ in range(steps):
            some = rows[torch.randint(len(rows), (min(batch_size, len(rows)),), generator=generator)]
            with torch.enable_grad():
                logits = trial.logits(torch.linalg.qr(free).Q, some)
                loss = torch.nn.functional.cross_entropy(logits.float(), trial.wanted[some].to(logits.device))
                (free.grad,) = torch.autograd.grad(loss, [free])
            adam.step()
            losses.append(float(loss.detach()))
    finally:
        for p in asking:
            p.requires_grad_(True)
    return torch.linalg.qr(free.detach()).Q, losses
