"""Wide dictionaries: each process holds a share of the latents and sees every row of the batch.

The encoder's product is local. A row's k largest codes are among the k largest of each process: these are exchanged
(k numbers a row and process), and every process sees which of its own have won. What each process writes is summed over
all; so is, backwards, what each makes of the b_dec it has taken off. Everything else - gradients, moments, norms, who
fired when - stays where the latents are. Checkpoints and the saved coder are those of one process, put together by
DTensor (``torch.distributed.tensor``), which gathers what is split along an axis; inside a step it would bring nothing,
since no operation on sparse codes knows how to split itself. At the start and at a checkpoint each process holds the
whole dictionary for a moment, one tensor at a time. Read next: ``splitting.py`` (a step).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from interp.errors import InputError
from sae.parallel import Alone, Peers

if TYPE_CHECKING:
    from sae.coder import Coder
    from sae.config import TrainConfig

__all__ = ["Shards", "joined"]

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


def joined(split: str = "rows") -> Alone:
    """The processes of this run, all that a launcher has connected, or this one alone.

    Raises
    ------
    InputError
        ``split``, what they share, is neither ``"rows"`` nor ``"latents"``.
    """
    if split not in ("rows", "latents"):
        raise InputError(f"split = {split!r}: processes share 'rows' or 'latents'")
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return Alone()
    return Shards() if split == "latents" else Peers()
