"""Optimisers whose whole state is named tensors, so that a checkpoint of them is exact.

``adam``: torch's, fused. ``signum``: the sign of a running mean of gradients (Bernstein et al. 2018).
``schedule-free``: Adam at y = (1 - b) z + b x where x is the running mean of z (Defazio et al. 2024); the weights
that are saved and evaluated are x.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Optimiser", "Team"]


class Optimiser:
    """One of the three over named parameters; ``tensors`` and ``restore`` are its state."""

    def __init__(
        self, name: str, parameters: Iterable[tuple[str, nn.Parameter]], betas: tuple[float, float]
    ) -> None:
        self.name, self.betas = name, betas
        self.parameters = dict(parameters)
        # a transposed matrix is given to Adam as it lies in memory: the fused kernel would copy it there and back
        self._laid = {key: _laid(parameter) for key, parameter in self.parameters.items()}
        self._adam = (
            torch.optim.Adam(self._laid.values(), betas=betas, fused=True) if name == "adam" else None
        )
        self.state: dict[str, dict[str, Tensor]] = (
            {} if self._adam is not None else {key: self._start(p) for key, p in self.parameters.items()}
        )

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        if self.name == "signum":
            return {"mean": torch.zeros_like(parameter)}
        zeros = torch.zeros_like(parameter)
        return {
            "z": parameter.detach().clone(),
            "x": parameter.detach().clone(),
            "square": zeros,
            "weight": torch.zeros(2),
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step at ``rate`` down the gradients that the parameters hold."""
        if self._adam is not None:
            for group in self._adam.param_groups:
                group["lr"] = rate
            self._lay()
            self._adam.step()
            return
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                (self._signum if self.name == "signum" else self._free)(parameter, self.state[name], rate)

    def _lay(self) -> None:
        for name, parameter in self.parameters.items():
            if self._laid[name] is not parameter:
                self._laid[name].grad = None if parameter.grad is None else parameter.grad.T

    def _signum(self, parameter: Tensor, state: dict[str, Tensor], rate: float) -> None:
        assert parameter.grad is not None
        mean = state["mean"].lerp_(parameter.grad, 1 - self.betas[0])
        parameter.sub_(rate * mean.sign())

    def _free(self, parameter: Tensor, state: dict[str, Tensor], rate: float) -> None:
        count, total = state["weight"].tolist()
        count, total = count + 1, total + rate**2
        state["weight"].copy_(torch.tensor([count, total]))
        grad = parameter.grad
        assert grad is not None  # the caller has looked
        square = state["square"].mul_(self.betas[1]).addcmul_(grad, grad, value=1 - self.betas[1])
        size = (square / (1 - self.betas[1] ** count)).sqrt_().add_(1e-8)
        state["z"].addcdiv_(grad, size, value=-rate)
        state["x"].lerp_(state["z"], rate**2 / total)
        parameter.copy_(torch.lerp(state["z"], state["x"], self.betas[0]))

    def averaged(self) -> dict[str, Tensor]:
        """The weights to keep: the running mean of schedule-free, else nothing."""
        return {name: state["x"] for name, state in self.state.items() if "x" in state}

    @torch.no_grad()
    def forget(self, name: str, latents: Tensor, axis: int) -> None:
        """Set what is remembered of some latents' entries of a parameter to 0 (or to the parameter itself)."""
        parameter = self.parameters[name]
        for key, value in self._state(name).items():
            if value.shape != parameter.shape:
                continue
            if key in ("z", "x"):
                value.index_copy_(axis, latents, parameter.detach().index_select(axis, latents))
            else:
                value.index_fill_(axis, latents, 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """Everything it remembers, by ``parameter.name``."""
        return {
            f"{name}/{key}": value for name in self.parameters for key, value in self._state(name).items()
        }

    def _state(self, name: str) -> dict[str, Tensor]:
        """What is remembered of a parameter, in its shape."""
        if self._adam is None:
            return self.state[name]
        laid = self._laid[name]
        turned = laid is not self.parameters[name]
        state = {key: torch.as_tensor(value) for key, value in self._adam.state.get(laid, {}).items()}
        return {key: value.T if turned and value.ndim else value for key, value in state.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave; a moment lies in memory as its parameter does."""
        for key, value in tensors.items():
            name, _, what = key.partition("/")
            parameter = self.parameters[name]
            kept = (
                torch.empty_like(parameter)
                if value.shape == parameter.shape and value.ndim
                else value.clone().to(parameter.device if self._adam is not None else value.device)
            )
            kept.copy_(value)
            if self._adam is None:
                self.state[name][what] = kept
            else:
                laid = self._laid[name]
                self._adam.state[laid][what] = kept.T if laid is not parameter and kept.ndim else kept


class Team:
    """Optimisers that step at one rate, Adam's in one call; each keeps its own state, and steps by itself no more."""

    def __init__(self, members: Sequence[Optimiser]) -> None:
        self.members = members
        self._adam: torch.optim.Adam | None = None
        if members[0]._adam is not None:
            laid = [parameter for one in members for parameter in one._laid.values()]
            self._adam = torch.optim.Adam(laid, betas=members[0].betas, fused=True)
            for one in members:
                assert one._adam is not None  # all are of one kind
                self._adam.state.update(one._adam.state)
                one._adam = self._adam

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """:meth:`Optimiser.step` of every member."""
        if self._adam is None:
            for one in self.members:
                one.step(rate)
            return
        for one in self.members:
            one._lay()
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()


def _laid(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter, or its transpose if that is what lies row by row in memory."""
    if parameter.is_contiguous() or parameter.ndim != 2:
        return parameter
    return nn.Parameter(parameter.detach().T)
