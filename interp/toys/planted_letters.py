"""Two planted circuits on letters, with positions: ``previous`` copies, ``induction`` composes two heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.errors import InputError
from interp.toys.planted_design import Design, Prompts, edges, orders
from interp.toys.planted_graph import PlantedGraph
from interp.toys.wiring import Wiring

__all__ = ["INDUCTION", "PREVIOUS"]

# -- previous: the simplest copy ------------------------------------------------------------------------------------

N_LETTERS, PREVIOUS_LENGTH, INDUCTION_LENGTH = 12, 8, 9
LETTERS = tuple("abcdefghijkl")


def _shift(n: int) -> Tensor:
    """[n, n] takes the one-hot of position p to that of position p - 1."""
    return torch.diag(torch.ones(n - 1), -1)


def _previous_wiring() -> Wiring:
    n, length = N_LETTERS, PREVIOUS_LENGTH
    net = Wiring({"token": n, "position": length, "previous": n}, d_vocab=n, n_ctx=length, n_layers=1)
    net.tokens(token=torch.eye(n))
    net.positions(position=torch.eye(length))
    net.head(
        0, 0, beta=4.0, q={"position": _shift(length)}, k={"position": torch.eye(length)},
        v={"token": torch.eye(n)}, to="previous",
    )  # fmt: skip
    net.answer("previous", 6 * torch.eye(n))
    return net


def _previous_prompts(n: int, generator: torch.Generator) -> Prompts:
    clean = orders(n, N_LETTERS, generator)[:, :PREVIOUS_LENGTH]
    place = torch.randint(0, PREVIOUS_LENGTH - 2, (n, 1), generator=generator)
    corrupted = clean.clone()
    corrupted[:, -2:-1] = clean.gather(1, place)
    corrupted.scatter_(1, place, clean[:, -2:-1])
    return clean, corrupted, clean[:, -2], corrupted[:, -2]


PREVIOUS = Design(
    about="Says the token before the last: one head attends one position back and copies.",
    strings=LETTERS,
    length=PREVIOUS_LENGTH,
    build=_previous_wiring,
    program=lambda row: row[-2],
    draw=_previous_prompts,
    graph=PlantedGraph(
        n_layers=1,
        n_heads=4,
        essential=edges("input->a0.h0<q> <k> <v> \n a0.h0->logits"),
        still=edges("input->a0.h0<q> <k>"),
    ),
)

# -- induction: K-composition ---------------------------------------------------------------------------------------

_PATTERNS = torch.tensor(
    [[4, 0, 2, 5, 1, 3, 6, 7, 0], [4, 1, 3, 5, 0, 2, 6, 7, 0], [4, 0, 2, 5, 6, 1, 3, 7, 0],
     [4, 1, 3, 5, 6, 0, 2, 7, 0], [4, 5, 0, 2, 6, 1, 3, 7, 0], [4, 5, 1, 3, 6, 0, 2, 7, 0]]
)  # fmt: skip
"""A B = symbols 0 2; D C = symbols 1 3; the rest fills. None begins with A: the first token has itself before it."""
_EXCHANGED = torch.tensor([1, 0, 3, 2, 4, 5, 6, 7])


def _induction_wiring() -> Wiring:
    n, length = N_LETTERS, INDUCTION_LENGTH
    spaces = {"token": n, "position": length, "previous": n, "answer": n}
    net = Wiring(spaces, d_vocab=n, n_ctx=length)
    eye = torch.eye(n)
    net.tokens(token=eye)
    net.positions(position=torch.eye(length))
    net.head(
        0, 0, beta=4.0, q={"position": _shift(length)}, k={"position": torch.eye(length)},
        v={"token": eye}, to="previous",
    )  # fmt: skip
    # "where did what stood before equal what stands here?"
    net.head(1, 0, beta=5.0, q={"token": eye}, k={"previous": eye}, v={"token": eye}, to="answer")
    net.answer("answer", 6 * eye)
    return net


def _induction_prompts(n: int, generator: torch.Generator) -> Prompts:
    letters = orders(n, N_LETTERS, generator)
    pattern = _PATTERNS[torch.randint(len(_PATTERNS), (n,), generator=generator)]
    clean, corrupted = letters.gather(1, pattern), letters.gather(1, _EXCHANGED[pattern])
    return clean, corrupted, letters[:, 2], letters[:, 3]


def _induction_program(row: Sequence[int]) -> int:
    earlier = list(row[:-1])
    if row[-1] not in earlier:
        raise InputError("the last token of an induction prompt must have occurred before")
    return row[earlier.index(row[-1]) + 1]


INDUCTION = Design(
    about=(
        "'... A B ... D C ... A' -> B. A previous-token head writes at B that A came before; an induction head looks "
        "for the place before which the current token stood (K-composition) and copies its token."
    ),
    strings=LETTERS,
    length=INDUCTION_LENGTH,
    build=_induction_wiring,
    program=_induction_program,
    draw=_induction_prompts,
    graph=PlantedGraph(
        n_layers=2,
        n_heads=4,
        essential=edges("input->a0.h0<q> <k> <v> \n input->a1.h0<q> <v> \n a0.h0->a1.h0<k> \n a1.h0->logits"),
        still=edges("input->a0.h0<q> <k>"),
    ),
)
