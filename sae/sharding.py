"""Wide dictionaries: each process holds a share of the latents and sees every row of the batch.

The encoder's product is local. A row's k largest codes are among the k largest of each process: these are exchanged
(k numbers a row and process), and every process sees which of its own have won. What each process writes is summed over
all; so is, backwards, what each makes of the b_dec it has taken off. Everything else - gradients, moments, norms, who
fired when - stays where the latents are. Checkpoints and the saved coder are those of one process, put together by
DTensor (``torch.distributed.tensor``), which gathers what is split along an axis; inside a step it would bring nothing,
since no operation on sparse codes knows how to split itself. At the start and at a checkpoint each process holds the
whole dictionary for a moment, one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from interp.errors import InputError
from sae.parallel import Alone, Peers
from sae.products import read, write
from sae.selection import Support

if TYPE_CHECKING:
    from sae.coder import Coder
    from sae.config import TrainConfig
    from sae.objectives import Moment, Terms

__all__ = ["Shards", "objective_sharded"]

_KINDS = ("topk", "abstopk", "batchtopk")
_AXES = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "last_fired": 0}


class Shards(Peers):
    """Processes that share the latents, in the order of their ranks."""

    def __init__(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        super().__init__()
        self.mesh = init_device_mesh(self.device.type, (self.size,))

    def ask(self, config: TrainConfig) -> None:
        """Whether a configuration can be split.

        Raises
        ------
        InputError
            It cannot; every reason is named.
        """
        each = config.d_sae // self.size
        problems = [
            (config.kind not in _KINDS, f"kind = {config.kind!r} is not one of {list(_KINDS)}"),
            (config.wiring == "cross-layer", "the wires of a cross-layer transcoder are not split"),
            (config.d_sae % self.size, f"{config.d_sae} latents do not divide among {self.size} processes"),
            (config.k > each, f"k = {config.k} exceeds the {each} latents of a process"),
            (config.resample_every, "dead latents are not resampled there; AuxK brings them back"),
            (config.end_to_end, "the end-to-end loss needs whole rows of codes"),
        ]
        if any(wrong for wrong, _ in problems):
            told = "; ".join(text for wrong, text in problems if wrong)
            raise InputError(f"this training cannot be split by latents: {told}")

    def total(self, number: int) -> int:
        """Everyone has the same rows: their number is the number."""
        return number

    def counted(self, number: int) -> int:
        """The sum over everyone's latents."""
        return Peers.total(self, number)

    def latents(self, number: int) -> int:
        """As :meth:`counted`."""
        return self.counted(number)

    def add_(self, tensors: Iterable[Tensor]) -> None:
        """Nothing: what everyone knows of the rows is the same."""

    def share(self, indices: Tensor) -> Tensor:
        """All of them."""
        return indices

    def part(self, coder: Coder) -> Coder:
        """This process's latents of a whole coder."""
        mine = coder.alike(d_sae=coder.d_sae // self.size)
        mine.load_state_dict(self.own(coder.state_dict()))
        return mine

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's part of whole tensors; see :meth:`whole`."""
        split = {name: _axis(name, value) for name, value in tensors.items()}
        return {
            name: value if (axis := split[name]) is None else value.tensor_split(self.size, axis)[self.rank]
            for name, value in tensors.items()
        }

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all latents, from those of each process: everyone must ask, and everyone gets them."""
        from torch.distributed.tensor import DTensor, Shard

        found = {}
        for name, value in tensors.items():
            axis = _axis(name, value)
            if axis is not None:
                local = value.detach().movedim(axis, 0).contiguous()
                value = DTensor.from_local(local, self.mesh, [Shard(0)]).full_tensor().movedim(0, axis)
            found[name] = value
        return found

    def clip_(self, named: Iterable[tuple[str, Tensor]], most: float) -> None:
        """Scale everyone's gradients so that together they are no longer than ``most``."""
        grads = [(name, p.grad) for name, p in named if p.grad is not None]
        mine = torch.stack([g.square().sum() for name, g in grads if name in _AXES]).sum()
        dist.all_reduce(mine)
        shared = [g.square().sum() for name, g in grads if name not in _AXES]
        norm = torch.stack([mine, *shared]).sum().sqrt()
        factor = (most / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ has it
        for _, grad in grads:
            grad.mul_(factor)


def _axis(name: str, value: Tensor) -> int | None:
    """Along which axis the latents lie, by the name that a checkpoint gives a tensor; None where there are none."""
    owner, _, what = name.rpartition(".")[2].partition("/")
    axis = _AXES.get(owner)
    return None if what in ("step", "weight") or axis is None or value.ndim <= axis else axis


class _Summed(torch.autograd.Function):
    """The sum over processes of what each writes; each gets the whole gradient for its own."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        total = given[0].clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return given[0]


class _Shared(torch.autograd.Function):
    """What all processes hold and each uses for its own latents: gradients are summed."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        return given[0].clone()

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = given[0].clone()
        dist.all_reduce(total)
        return total


def objective_sharded(
    coder: Coder, x: Tensor, y: Tensor, config: TrainConfig, moment: Moment, shards: Shards
) -> Terms:
    """The loss of everyone's latents together; the gradients that come of it are those of this process's own."""
    from sae.choosing import chosen
    from sae.objectives import Terms

    low = coder.W_dec.detach().bfloat16() if config.precision == "bf16" else None
    shift = _Shared.apply(coder.b_dec) if coder.centred else None
    centred = coder.shifted(x).detach()
    peers = shards if coder.rule.pooled else Alone()
    support, values, smallest = chosen(
        coder, centred, guess=moment.guess, peers=peers, screen=config.screen, precision=config.precision
    )
    if not coder.rule.pooled:
        support, values = _winners(
            coder, support.col.view(len(x), -1), values.view(len(x), -1), coder.k, shards
        )
    rows = centred if low is None else centred.bfloat16()
    codes = coder.rule.act(read(rows, shift, coder.W_enc, coder.b_enc, values, support))  # pyright: ignore[reportArgumentType]
    rest = y - coder.base(x) - _sum(write(codes, coder.W_dec, support, low))
    error = rest.square().sum(1)
    total = error.sum()
    if config.flops:
        use = codes.new_zeros(coder.d_sae).index_add(0, support.col, codes.abs()) / len(x)
        total = total + config.flops * len(x) * _sum(use.square().sum())
    if moment.dead is not None and config.auxk and (n_dead := shards.counted(len(moment.dead))):
        k = min(config.k_aux or max(1, coder.d_out // 2), n_dead)
        kept, pre = _attempts(coder, rows, moment.dead, k)
        places, values = _winners(coder, kept, pre, k, shards)
        again = coder.rule.act(read(rows, None, coder.W_enc, coder.b_enc, values, places))
        written = _sum(write(again, coder.W_dec, places, low))
        total = total + config.auxk * (rest.detach() - written).square().sum()
    on = support.col[codes.detach() != 0]
    return Terms(
        loss=total / (len(x) * coder.d_out),
        error=error.detach(),
        fired=torch.bincount(on, minlength=coder.d_sae),
        smallest=smallest,
    )


def _sum(own: Tensor) -> Tensor:
    return _Summed.apply(own)  # pyright: ignore[reportReturnType]


def _attempts(coder: Coder, rows: Tensor, dead: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best of this process's dead latents for each row, of which there may be none."""
    from sae.objectives import attempt

    if len(dead):
        return attempt(coder, rows, dead, k)
    return dead.new_zeros(len(rows), 0), coder.b_enc.new_zeros(len(rows), 0)


@torch.no_grad()
def _winners(coder: Coder, col: Tensor, values: Tensor, k: int, shards: Shards) -> tuple[Support, Tensor]:
    """Of each row's candidates [sample, at most k] of every process the k largest: those of them that are here.

    Of equal ones those with the lower number stay, as where all latents are in one place.
    """
    rank = coder.rule.rank
    assert rank is not None  # ``Shards.ask`` has looked
    col, order = col.sort(1)
    values = values.gather(1, order)
    score = values.new_full((len(col), k), -torch.inf)
    score[:, : col.shape[1]] = rank(values)
    parts = [torch.empty_like(score) for _ in range(shards.size)]
    dist.all_gather(parts, score)
    best = torch.cat(parts, 1).argsort(dim=1, descending=True, stable=True)[:, :k]
    won = torch.zeros(len(col), k * shards.size, dtype=torch.bool, device=col.device).scatter_(1, best, True)
    mine = won[:, shards.rank * k :][:, : col.shape[1]]
    offsets = torch.zeros(len(col) + 1, dtype=torch.long, device=col.device)
    torch.cumsum(mine.sum(1), 0, out=offsets[1:])
    return Support(offsets, col[mine], coder.d_sae), values[mine]
