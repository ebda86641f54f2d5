"""Undoing a permutation: impossible for a causal decoder, easy with an encoder's mask or with scratch tokens.

The input is a permutation p(0) ... p(n-1) and a string y with y(j) = x(p(j)); wanted is x, where x(i) = y(j) for the j
with p(j) = i. Read at the string's own positions, answer i needs a letter that may not have come yet. The very same two
attention layers, written down here by hand, solve the task without the mask, or with it when the answers are read at n
further, empty tokens.

References
----------
"The impossibility of inverse permutation learning in transformer models" 2025 (arXiv 2509.24125), section 3-5.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError, nearest

__all__ = ["InversePermutation", "causal_bound", "causal_bound_all"]

SHARP = 60.0
"""Attention scores of a match: every other weight is below 1e-25."""


def causal_bound(n: int, n_letters: int) -> list[float]:
    """The best accuracy that any function of the permutation and the letters so far can have at each answer i.

    Letters are uniform. Answer i is known if its letter stands at or before position i, which (i + 1) / n of the
    permutations do; else it is a guess. Depth, width and training do not enter.
    """
    return [(i + 1) / n + (1 - (i + 1) / n) / n_letters for i in range(n)]


def causal_bound_all(n: int, n_letters: int) -> float:
    """The best probability that all n answers are right: the mean over permutations of 1/k to the number of guesses.

    Letters are uniform; an answer must be guessed for every i whose letter comes later. Such a letter is at the same
    time lost for good, as no later answer asks for it. Cost: n! permutations.
    """
    total = 0.0
    for p in itertools.permutations(range(n)):
        late = sum(p.index(i) > i for i in range(n))
        total += float(n_letters) ** -late
    return total / math.factorial(n)


class _Head(nn.Module):
    """One attention head with its own query, key, value and output maps; scores are not scaled."""

    def __init__(self, d_model: int, d_match: int, d_value: int) -> None:
        super().__init__()
        self.q = nn.Linear(d_model, d_match, bias=False)
        self.k = nn.Linear(d_model, d_match, bias=False)
        self.v = nn.Linear(d_model, d_value, bias=False)
        self.o = nn.Linear(d_value, d_model, bias=False)
        self.pattern = nn.Identity()

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        scores = (self.q(x) @ self.k(x).transpose(1, 2)).masked_fill(~allowed, -torch.inf)
        return self.o(self.pattern(scores.softmax(-1)) @ self.v(x))


class InversePermutation(nn.Module):
    """Two hand-written attention layers that undo a permutation.

    Tokens: 0..n-1 the permutation's values, n..n+k-1 the letters, n+k the scratch token. The first layer finds where
    the permutation has the value i, the second reads the letter there.

    Parameters
    ----------
    n, n_letters
        Length of the permutation, size k of the alphabet.
    mode
        ``"decoder"``: causal, answers at the string's positions. ``"encoder"``: the same without the mask.
        ``"scratch"``: causal, answers at n scratch tokens behind the string.

    Raises
    ------
    InputError
        The mode is unknown, or a size is below 1.
    """

    def __init__(self, n: int, n_letters: int, *, mode: str = "scratch") -> None:
        super().__init__()
        modes = ("decoder", "encoder", "scratch")
        if mode not in modes:
            raise InputError(f"no mode {mode!r}{nearest(mode, modes)} (modes: {', '.join(modes)})")
        if min(n, n_letters) < 1:
            raise InputError(f"n and n_letters must be at least 1, got {n} and {n_letters}")
        self.n, self.n_letters, self.mode = n, n_letters, mode
        length = n * (3 if mode == "scratch" else 2)
        d_token = n + n_letters + 1
        # the stream: token one-hot | position one-hot | found place one-hot | found letter one-hot
        self.d_model = d_token + length + n + n_letters
        self.embed = nn.Embedding(d_token, self.d_model)
        self.pos_embed = nn.Embedding(length, self.d_model)
        self.find = _Head(self.d_model, n, n)
        self.read = _Head(self.d_model, n, n_letters)
        self.unembed = nn.Linear(self.d_model, n_letters, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self._write(d_token, length)

    def _write(self, d_token: int, length: int) -> None:
        n, k = self.n, self.n_letters
        position, place, letter = d_token, d_token + length, d_token + length + n
        answers = length - n  # the first position at which an answer is read
        token = torch.arange(d_token)
        self.embed.weight[token, token] = 1
        self.pos_embed.weight[torch.arange(length), position + torch.arange(length)] = 1
        i = torch.arange(n)
        # find: the answer at position answers + i asks for the permutation's value i, and is told where it stands
        self.find.q.weight[i, position + answers + i] = SHARP
        self.find.k.weight[i, i] = 1
        self.find.v.weight[i, position + i] = 1
        self.find.o.weight[place + i, i] = 1
        # read: that place of the string, and the letter there
        self.read.q.weight[i, place + i] = SHARP
        self.read.k.weight[i, position + n + i] = 1
        c = torch.arange(k)
        self.read.v.weight[c, n + c] = 1
        self.read.o.weight[letter + c, c] = 1
        self.unembed.weight[c, letter + c] = 1

    def inputs(self, p: Int64[Tensor, "batch n"], x: Int64[Tensor, "batch n"]) -> Int64[Tensor, "batch pos"]:
        """The rows for permutations ``p`` and strings ``x`` of letters 0..k-1."""
        parts = [p, self.n + x.gather(1, p)]
        if self.mode == "scratch":
            parts.append(torch.full_like(p, self.n + self.n_letters))
        return torch.cat(parts, 1)

    def forward(self, ids: Int64[Tensor, "batch pos"]) -> Float[Tensor, "batch pos letter"]:
        """Logits over letters; the answers are at the last n positions."""
        length = ids.shape[1]
        x = self.embed(ids) + self.pos_embed(torch.arange(length))
        allowed = torch.ones(length, length, dtype=torch.bool)
        if self.mode != "encoder":
            allowed = allowed.tril()
        x = x + self.find(x, allowed)
        x = x + self.read(x, allowed)
        return self.unembed(x)

    def answers(self, p: Int64[Tensor, "batch n"], x: Int64[Tensor, "batch n"]) -> Int64[Tensor, "batch n"]:
        """The letters it gives for x."""
        return self(self.inputs(p, x))[:, -self.n :].argmax(-1)
