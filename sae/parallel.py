"""Several processes on one batch: what they must agree on, in one place.

Each process takes its share of the rows of a step; gradients, counts and the latents that fired are summed, and the
edge of BatchTopK is that of all rows together, so that n processes do what one would do with the whole batch, up to
the order of additions. Where a dictionary is too wide for one process they share the latents instead (``sharding.py``).
The processes come from a launcher (torchrun, accelerate): this room starts none, and connects those that are not yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from sae.coder import Coder
    from sae.config import TrainConfig

__all__ = ["Alone", "Peers", "launched"]


class Alone:
    """One process."""

    rank, size = 0, 1

    def total(self, number: int) -> int:
        """The sum of everyone's number."""
        return number

    def counted(self, number: int) -> int:
        """The sum of everyone's number of codes, candidates or latents."""
        return self.total(number)

    def latents(self, number: int) -> int:
        """How many there are in all, where ``number`` are here."""
        return number

    def ask(self, config: TrainConfig) -> None:
        """Whether a configuration can be trained so."""

    def part(self, coder: Coder) -> Coder:
        """The latents that are this process's."""
        return coder

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's part of the tensors of all latents."""
        return dict(tensors)

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of all latents, from everyone's part."""
        return dict(tensors)

    def clip_(self, named: Iterable[tuple[str, Tensor]], most: float) -> None:
        """Scale the gradients of parameters so that together they are no longer than ``most``."""
        torch.nn.utils.clip_grad_norm_([parameter for _, parameter in named], most)

    def add_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the sum of everyone's."""

    def share(self, indices: Tensor) -> Tensor:
        """The part of a batch that is this process's."""
        return indices

    def wait(self) -> None:
        """Until everyone is here."""

    def kth_largest(self, values: Tensor, count: int) -> float:
        """The ``count``-th largest of everyone's values, or the smallest if there are fewer; +inf if there are none."""
        if len(values) == 0:
            return float("inf")
        if len(values) <= count:
            return float(values.min())
        return float(values.kthvalue(len(values) - count + 1).values)


class Peers(Alone):
    """The processes of the default group of ``torch.distributed``."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # NCCL moves what is on a GPU only
        self.device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

    def total(self, number: int) -> int:
        """The sum of everyone's number."""
        value = torch.tensor(number, device=self.device)
        dist.all_reduce(value)
        return int(value)

    def add_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the sum of everyone's; one message for all of them."""
        given = list(tensors)
        flat = torch.cat([t.reshape(-1) for t in given])
        dist.all_reduce(flat)
        for tensor, part in zip(given, flat.split([t.numel() for t in given]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def share(self, indices: Tensor) -> Tensor:
        """Every size-th row, from the rank on."""
        return indices[self.rank :: self.size]

    def wait(self) -> None:
        """Until everyone is here."""
        dist.barrier()

    def kth_largest(self, values: Tensor, count: int) -> float:
        """The ``count``-th largest of everyone's values; each sends its own ``count`` largest at most."""
        mine = values if len(values) <= count else values.topk(count, sorted=False).values
        lengths = [0] * self.size
        dist.all_gather_object(lengths, len(mine))
        room = mine.new_full((max(lengths),), -torch.inf)
        room[: len(mine)] = mine
        parts = [torch.empty_like(room) for _ in range(self.size)]
        dist.all_gather(parts, room)
        return super().kth_largest(torch.cat([p[:n] for p, n in zip(parts, lengths, strict=True)]), count)


@contextmanager
def launched() -> Iterator[None]:
    """Connect the processes that a launcher has started, if it has and nobody has done so; they part at the end."""
    waiting = dist.is_available() and not dist.is_initialized() and "MASTER_ADDR" in os.environ
    if not waiting or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
