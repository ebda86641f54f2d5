"""A recurrent network that learns parity on strings of up to ten bits and then is right on any length.

The network first has a state for almost every string; in one abrupt phase the states of strings that need the same
future merge, until a finite automaton is left. :func:`automaton_of` extracts it: hidden vectors that lie close are one
state, transitions are read off, and equal states are merged on the outputs (Hopcroft's partition refinement).

References
----------
van Rossem and Saxe 2025, "Algorithm development in neural networks: insights from the streaming parity task".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError
from interp.showing import Shown

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = [
    "Automaton",
    "ParityNetwork",
    "ParityRun",
    "automaton_of",
    "by_hand",
    "minimise",
    "strings",
    "train_parity",
]


def strings(length: int) -> Int64[Tensor, "string bit"]:
    """All bit strings of one length."""
    return (torch.arange(2**length)[:, None] >> torch.arange(length - 1, -1, -1)) & 1


class ParityNetwork(nn.Module):
    """ReLU recurrence on one-hot bits from a state of ones, and a linear read-out of the last state."""

    def __init__(
        self, *, d_hidden: int = 100, generator: torch.Generator | None = None, gain: float = 0.1
    ) -> None:
        super().__init__()
        self.input = nn.Linear(2, d_hidden)
        self.recurrent = nn.Linear(d_hidden, d_hidden)
        self.output = nn.Linear(d_hidden, 2)
        with torch.no_grad():
            for linear in (self.input, self.recurrent, self.output):
                spread = gain * (2 / sum(linear.weight.shape)) ** 0.5  # Xavier
                linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) * spread)
                linear.bias.zero_()

    def states(self, bits: Int64[Tensor, "string bit"]) -> Float[Tensor, "string d_hidden"]:
        """The hidden state after each string."""
        like = self.input.weight
        x = nn.functional.one_hot(bits, 2).to(like)
        state = like.new_ones(len(bits), self.recurrent.weight.shape[0])
        for t in range(bits.shape[1]):
            state = torch.relu(self.input(x[:, t]) + self.recurrent(state))
        return state

    def forward(self, bits: Int64[Tensor, "string bit"]) -> Float[Tensor, "string parity"]:
        """The two outputs after each string; the larger is the answer."""
        return self.output(self.states(bits))

    def accuracy(self, length: int, *, n: int = 256, seed: int = 0) -> float:
        """The share of random strings of one length whose parity is right."""
        bits = torch.randint(2, (n, length), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return float((self(bits).argmax(1) == bits.sum(1) % 2).double().mean())


def by_hand() -> ParityNetwork:
    """Five neurons that compute parity exactly.

    Four hold what the last step was: even and 0, odd and 1 (both now even), odd and 0, even and 1 (both now odd); each
    is relu(what was + the bit - 1). The fifth is 1 at the start only and corrects the state of ones to "even".
    """
    module = ParityNetwork(d_hidden=5)
    even, odd = torch.tensor([1.0, 1, 0, 0, -1]), torch.tensor([0.0, 0, 1, 1, -2])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.recurrent.weight[:4] = torch.stack([even, odd, odd, even])
        module.recurrent.bias[:4] = -1
        module.input.weight[:4] = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
        module.output.weight.copy_(torch.stack([even, odd]))
    return module


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Automaton(Shown):
    """States with their output and their successor for each bit (-1 where no string shows it)."""

    start: int
    output: tuple[int, ...]
    next: tuple[tuple[int, int], ...]

    @property
    def finite(self) -> bool:
        """Whether every state has both successors: it then answers strings of any length."""
        return all(successor >= 0 for pair in self.next for successor in pair)

    def run(self, bits: Sequence[int]) -> int | None:
        """The output after a string, None where a successor is unknown."""
        state = self.start
        for bit in bits:
            state = self.next[state][bit]
            if state < 0:
                return None
        return self.output[state]


@torch.no_grad()
def automaton_of(
    states: Callable[[Tensor], Tensor],
    outputs: Callable[[Tensor], Tensor],
    *,
    length: int = 10,
    closeness: float = 0.01,
) -> Automaton:
    """The automaton that a recurrent network runs on all strings up to ``length``.

    Parameters
    ----------
    states
        The hidden state after each of a batch of strings of one length (0 included).
    outputs
        The answer of hidden states.
    closeness
        Two hidden vectors are one state if they are nearer than this times the norm of the per-unit spread.
    """
    vectors = [states(strings(n) if n else torch.zeros(1, 0, dtype=torch.int64)) for n in range(length + 1)]
    every = torch.cat(vectors)
    near = closeness * float(every.double().std(0).norm())
    centres: list[Tensor] = []
    member = torch.full((len(every),), -1)
    left = torch.arange(len(every))
    while len(left):
        centre = every[left[0]]
        close = (every[left] - centre).norm(dim=1) <= near
        member[left[close]] = len(centres)
        centres.append(centre)
        left = left[~close]
    starts = [2**n - 1 for n in range(length + 1)]  # where each length begins
    following = [[-1, -1] for _ in centres]
    for n in range(length):
        for s in range(2**n):
            for bit in (0, 1):
                here = int(member[starts[n] + s])
                if following[here][bit] < 0:
                    following[here][bit] = int(member[starts[n + 1] + 2 * s + bit])
    answer = outputs(torch.stack(centres)).tolist()
    return Automaton(start=int(member[0]), output=tuple(answer), next=tuple((a, b) for a, b in following))


def minimise(automaton: Automaton) -> Automaton:
    """The smallest automaton with the same answers.

    Raises
    ------
    InputError
        A successor is unknown: the automaton is not finite.
    """
    if not automaton.finite:
        raise InputError("an automaton with unknown successors cannot be minimised")
    block = list(automaton.output)
    while True:
        keys = [(block[s], *(block[t] for t in automaton.next[s])) for s in range(len(block))]
        numbers: dict[tuple[int, ...], int] = {}
        refined = [numbers.setdefault(key, len(numbers)) for key in keys]
        if len(numbers) == len(set(block)):
            break
        block = refined
    numbers = {}
    order: list[int] = []
    pending = [automaton.start]
    while pending:  # only what the start reaches, in the order it is reached
        state = pending.pop(0)
        if (block[state],) not in numbers:
            numbers[block[state],] = len(order)
            order.append(state)
            pending += automaton.next[state]
    return Automaton(
        start=0,
        output=tuple(automaton.output[s] for s in order),
        next=tuple((numbers[block[a],], numbers[block[b],]) for a, b in (automaton.next[s] for s in order)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ParityRun(Shown):
    """A trained network and its automata along the way."""

    module: ParityNetwork
    curve: tuple[tuple[int, float, float, int], ...]
    """Epoch, loss, accuracy at length 50, states of the extracted automaton."""

    def to_frame(self) -> pd.DataFrame:
        """A row per check of the training."""
        import pandas as pd

        return pd.DataFrame(list(self.curve), columns=pd.Index(["epoch", "loss", "accuracy", "states"]))

    def plot(self) -> go.Figure:
        """The accuracy at length 50 over the epochs."""
        from interp.plots import Series, lines

        table = self.to_frame()
        series = [Series(name=name, y=table[name].to_numpy()) for name in ["accuracy"]]
        return lines(table["epoch"].tolist(), series, x_title="epoch", y_title="share")


def train_parity(
    *,
    seed: int = 0,
    epochs: int = 1000,
    length: int = 10,
    lr: float = 0.02,
    batch: int = 128,
    check_every: int = 50,
) -> ParityRun:
    """Train on all strings of length 1 to ``length`` (SGD, squared error); stop once length 50 is answered.

    Cost: about 40 CPU seconds.
    """
    generator = torch.Generator().manual_seed(seed)
    module = ParityNetwork(generator=generator)
    sets = [strings(n) for n in range(1, length + 1)]
    optimiser = torch.optim.SGD(module.parameters(), lr=lr)
    curve = []
    for epoch in range(1, epochs + 1):
        total, n = 0.0, 0
        blocks = [
            rows
            for bits in sets
            for rows in bits[torch.randperm(len(bits), generator=generator)].split(batch)
        ]
        for i in torch.randperm(len(blocks), generator=generator).tolist():
            bits = blocks[i]
            wanted = nn.functional.one_hot(bits.sum(1) % 2, 2).to(module.output.weight)
            optimiser.zero_grad(set_to_none=True)
            loss = (module(bits) - wanted).square().mean()
            loss.backward()
            optimiser.step()
            total, n = total + float(loss.detach()) * len(bits), n + len(bits)
        if epoch % check_every == 0:
            found = automaton_of(module.states, lambda h: module.output(h).argmax(1), length=length)
            curve.append((epoch, total / n, module.accuracy(50), len(found.output)))
            if curve[-1][2] == 1:
                break
    return ParityRun(module=module.eval(), curve=tuple(curve))
