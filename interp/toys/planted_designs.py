"""The planted circuits: five algorithms wired by hand, each with its language, its plain program and its true edges.

A :class:`Design` is one circuit. Tokens are written to the stream as one-hot fields (``key 2``, ``word 0``), attention
compares fields, and every softmax is left moderate (``beta``), so that nothing is saturated unless the design says so.
Prompts come in pairs: a *pattern* of symbols is filled with fresh letters or records, and the corrupted prompt is the
same pattern with two symbols exchanged. Read next: ``planted_circuits.py``, which hands them out.
"""

# long: five circuits side by side, each a program, its weights and its graph

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError
from interp.toys.planted_graph import Edge, PlantedGraph
from interp.toys.wiring import Wiring

__all__ = ["DESIGNS", "Design"]

Prompts = tuple[
    Int64[Tensor, "batch pos"], Int64[Tensor, "batch pos"], Int64[Tensor, "batch"], Int64[Tensor, "batch"]
]
"""Clean ids, corrupted ids, answers, and the wrong answers they are measured against."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """One planted circuit."""

    about: str
    """What it computes and by which parts, in a sentence or two."""
    strings: tuple[str, ...]
    length: int
    """Tokens in a prompt."""
    build: Callable[[], Wiring]
    program: Callable[[Sequence[int]], int]
    """The answer to a prompt, by plain means."""
    draw: Callable[[int, torch.Generator], Prompts]
    graph: PlantedGraph


def _edges(text: str) -> tuple[Edge, ...]:
    """Edges from lines like ``input->a0.h0<q> <k> <v>``: a bare port repeats the line's nodes."""
    found = []
    for line in text.strip().splitlines():
        first, *more = line.split()
        stem = first.split("<")[0]
        found += [Edge.parse(first), *(Edge.parse(stem + port) for port in more)]
    return tuple(found)


def _letters(n: int) -> tuple[str, ...]:
    return tuple("abcdefghijklmnopqrstuvwxyz"[:n])


def _symbols(n: int, of: int, generator: torch.Generator) -> Tensor:
    """[batch, of] each row a random order of 0 .. of - 1."""
    return torch.rand(n, of, generator=generator).argsort(1)


def _one_hot(ids: Sequence[int], width: int, n_tokens: int) -> Tensor:
    """[n_tokens, width]: token ``i`` has the value ``ids[i]``, or nothing at all where that is -1."""
    table = torch.zeros(n_tokens, width)
    for token, value in enumerate(ids):
        if value >= 0:
            table[token, value] = 1
    return table


# -- previous: the simplest copy ------------------------------------------------------------------------------------

N_LETTERS, PREVIOUS_LENGTH, INDUCTION_LENGTH = 12, 8, 9


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
    clean = _symbols(n, N_LETTERS, generator)[:, :PREVIOUS_LENGTH]
    place = torch.randint(0, PREVIOUS_LENGTH - 2, (n, 1), generator=generator)
    corrupted = clean.clone()
    corrupted[:, -2:-1] = clean.gather(1, place)
    corrupted.scatter_(1, place, clean[:, -2:-1])
    return clean, corrupted, clean[:, -2], corrupted[:, -2]


PREVIOUS = Design(
    about="Says the token before the last: one head attends one position back and copies.",
    strings=_letters(N_LETTERS),
    length=PREVIOUS_LENGTH,
    build=_previous_wiring,
    program=lambda row: row[-2],
    draw=_previous_prompts,
    graph=PlantedGraph(
        n_layers=1,
        n_heads=4,
        essential=_edges("input->a0.h0<q> <k> <v> \n a0.h0->logits"),
        still=_edges("input->a0.h0<q> <k>"),
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
    letters = _symbols(n, N_LETTERS, generator)
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
    strings=_letters(N_LETTERS),
    length=INDUCTION_LENGTH,
    build=_induction_wiring,
    program=_induction_program,
    draw=_induction_prompts,
    graph=PlantedGraph(
        n_layers=2,
        n_heads=4,
        essential=_edges(
            "input->a0.h0<q> <k> <v> \n input->a1.h0<q> <v> \n a0.h0->a1.h0<k> \n a1.h0->logits"
        ),
        still=_edges("input->a0.h0<q> <k>"),
    ),
)

# -- two hops: K- and V-composition, no positions -------------------------------------------------------------------

N = 4
"""Names, keys and words in the languages of records."""
_SWAP = torch.tensor([1, 0, 2])


def _two_hop_fields() -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Tokens ``i=x`` (name i has word x), ``i:a`` (name i has key a), ``i``, ``a?``, ``x``, and their fields."""
    pairs = [(i, j) for i in range(N) for j in range(N)]
    strings = (
        *(f"n{i}=w{x}" for i, x in pairs), *(f"n{i}:k{a}" for i, a in pairs),
        *(f"n{i}" for i in range(N)), *(f"k{a}?" for a in range(N)), *(f"w{x}" for x in range(N)),
    )  # fmt: skip
    off, blank, every = [-1] * len(pairs), [-1] * N, list(range(N))
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    columns = {
        "word's name": first + off + 3 * blank,
        "word": second + off + 3 * blank,
        "key's name": off + first + 3 * blank,
        "key": off + second + 3 * blank,
        "name": 2 * off + every + 2 * blank,
        "asked": 2 * off + blank + every + blank,
    }
    return strings, {name: _one_hot(column, N, len(strings)) for name, column in columns.items()}


_TWO_HOP_STRINGS, _TWO_HOP_FIELDS = _two_hop_fields()


def _two_hop_wiring() -> Wiring:
    found = ("found key", "found word", "answer")
    net = Wiring(dict.fromkeys((*_TWO_HOP_FIELDS, *found), N), d_vocab=len(_TWO_HOP_STRINGS), n_ctx=10)
    eye = torch.eye(N)
    net.tokens(**_TWO_HOP_FIELDS)
    net.head(0, 0, beta=4.0, q={"name": eye}, k={"key's name": eye}, v={"key": eye}, to="found key")
    net.head(0, 1, beta=4.0, q={"name": eye}, k={"word's name": eye}, v={"word": eye}, to="found word")
    net.head(1, 0, beta=6.0, q={"asked": eye}, k={"found key": eye}, v={"found word": eye}, to="answer")
    net.answer("answer", 8 * _one_hot([-1] * (len(_TWO_HOP_STRINGS) - N) + list(range(N)), N, 44).T)
    return net


def _two_hop_prompts(n: int, generator: torch.Generator) -> Prompts:
    names, keys, words = (_symbols(n, N, generator)[:, :3] for _ in range(3))
    word_slots, key_slots, name_slots = (_symbols(n, 3, generator) for _ in range(3))
    pairs = N * N

    def prompt(exchange: Tensor) -> Tensor:
        at = [exchange[slots] for slots in (word_slots, key_slots, name_slots)]
        records = (
            N * names.gather(1, at[0]) + words.gather(1, at[0]),
            pairs + N * names.gather(1, at[1]) + keys.gather(1, at[1]),
            2 * pairs + names.gather(1, at[2]),
            2 * pairs + N + keys[:, exchange[:1]],
        )
        return torch.cat(records, dim=1)

    say = 2 * pairs + 2 * N
    return prompt(torch.arange(3)), prompt(_SWAP), say + words[:, 0], say + words[:, 1]


def _two_hop_program(row: Sequence[int]) -> int:
    said = [_TWO_HOP_STRINGS[token] for token in row]
    key_of = dict(text.split(":") for text in said if ":" in text)
    word_of = dict(text.split("=") for text in said if "=" in text)
    for name in said:
        if name in word_of and f"{key_of.get(name)}?" == said[-1]:
            return _TWO_HOP_STRINGS.index(word_of[name])
    raise InputError("a two-hop prompt asks for the key of a name that stands in it, with its word")


TWO_HOP = Design(
    about=(
        "'n2=w0 n1=w2 ... n1:k0 n2:k3 ... n1 n2 ... k3?' -> w0. At every name one head fetches its key and another its "
        "word; the question attends to the name whose fetched key is asked for (K-composition) and copies the fetched "
        "word (V-composition). No edge carries positions, so that the corruption moves every one."
    ),
    strings=_TWO_HOP_STRINGS,
    length=10,
    build=_two_hop_wiring,
    program=_two_hop_program,
    draw=_two_hop_prompts,
    graph=PlantedGraph(
        n_layers=2,
        n_heads=4,
        essential=_edges(
            """input->a0.h0<q> <k> <v>
            input->a0.h1<q> <k> <v>
            input->a1.h0<q>
            a0.h0->a1.h0<k>
            a0.h1->a1.h0<v>
            a1.h0->logits"""
        ),
    ),
)

# -- distractor: what carries the answer and causes nothing ---------------------------------------------------------

_RECORD_STRINGS = (
    *(f"k{a}=w{x}" for a in range(N) for x in range(N)), *(f"k{a}?" for a in range(N)),
    *(f"w{x}" for x in range(N)), "-",
)  # fmt: skip
"""Records, questions, words, and a blank."""
_ASK, _SAY, _BLANK = N * N, N * N + N, N * N + 2 * N


def _record_fields() -> dict[str, Tensor]:
    pairs = [(a, x) for a in range(N) for x in range(N)]
    blank, every = [-1] * N, list(range(N))
    columns = {
        "key": [a for a, _ in pairs] + 2 * blank,
        "word": [x for _, x in pairs] + 2 * blank,
        "asked": [-1] * len(pairs) + every + blank,
        "hint": [-1] * len(pairs) + blank + every,
    }
    return {name: _one_hot(column, N, len(_RECORD_STRINGS)) for name, column in columns.items()}


_RECORD_FIELDS = _record_fields()
_PARTNER = torch.eye(N).roll(1, 1)
"""[word, partner]: w0 -> w1 -> w2 -> w3 -> w0."""
_SAYS = _one_hot([-1] * _SAY + list(range(N)), N, len(_RECORD_STRINGS)).T


def _looked_up(row: Sequence[int]) -> int:
    """The word of the record that the last token asks for."""
    for token in row[:-1]:
        if token < _ASK and token // N == row[-1] - _ASK:
            return token % N
    raise InputError("the prompt must end in a question for a key of one of its records")


def _distractor_wiring() -> Wiring:
    spaces = (*_RECORD_FIELDS, "found", "answer", "decoy", "echo")
    net = Wiring(dict.fromkeys(spaces, N), d_vocab=len(_RECORD_STRINGS), n_ctx=5)
    eye, ones = torch.eye(N), torch.ones(N, 1)
    net.tokens(**_RECORD_FIELDS)
    net.head(0, 0, beta=4.0, q={"asked": eye}, k={"key": eye}, v={"word": eye}, to="found")
    net.neurons(0, reads={"found": eye}, writes=_PARTNER, to="answer")
    net.answer("answer", 8 * _SAYS)
    # Questions look at the hint, which is the answer; what they find there goes on to parts that nobody asks.
    net.head(0, 1, beta=4.0, q={"asked": ones}, k={"hint": ones}, v={"hint": eye}, to="decoy")
    net.head(1, 1, beta=4.0, q={"asked": ones}, k={"decoy": ones}, v={"decoy": eye}, to="echo")
    net.neurons(1, reads={"decoy": eye, "echo": eye}, writes=eye, to="decoy")
    return net


def _distractor_prompts(n: int, generator: torch.Generator) -> Prompts:
    keys, words = (_symbols(n, N, generator)[:, :3] for _ in range(2))
    slots = _symbols(n, 3, generator)
    partner = _SAY + (words + 1) % N

    def prompt(exchange: Tensor) -> Tensor:
        at, first = exchange[slots], exchange[:1]
        records = N * keys.gather(1, at) + words.gather(1, at)
        return torch.cat([records, partner[:, first], _ASK + keys[:, first]], dim=1)

    return prompt(torch.arange(3)), prompt(_SWAP), partner[:, 0], partner[:, 1]


DISTRACTOR = Design(
    about=(
        "'k1=w0 k3=w2 ... w1 k1?' -> w1, the successor of the word that was asked for: a head fetches the word, the "
        "first MLP turns it into its successor. The prompt also holds the answer as a hint, and a0.h1, a1.h1 and m1 "
        "find it and hand it on: they hold the answer and attend to it, and nothing reads what they write."
    ),
    strings=_RECORD_STRINGS,
    length=5,
    build=_distractor_wiring,
    program=lambda row: _SAY + (_looked_up(row) + 1) % N,
    draw=_distractor_prompts,
    graph=PlantedGraph(
        n_layers=2,
        n_heads=4,
        essential=_edges("input->a0.h0<q> <k> <v> \n a0.h0->m0 \n m0->logits"),
        decoys=("a0.h1", "a1.h1", "m1"),
    ),
)

# -- backup: two paths, either of which is enough -------------------------------------------------------------------


def _backup_wiring() -> Wiring:
    spaces = dict.fromkeys((*_RECORD_FIELDS, "found", "found again", "answer"), N)
    net = Wiring({"one": 1, **spaces}, d_vocab=len(_RECORD_STRINGS), n_ctx=5)
    eye, ones = torch.eye(N), torch.ones(1, N)
    net.tokens(one=torch.ones(len(_RECORD_STRINGS), 1), **_RECORD_FIELDS)
    net.head(0, 0, beta=4.0, q={"asked": eye}, k={"key": eye}, v={"word": eye}, to="found")
    net.head(1, 1, beta=4.0, q={"asked": eye}, k={"key": eye}, v={"word": eye}, to="found again")
    # min(1, relu(4 s - 2)) of the sum s of both: 1 as soon as one path has found the word (s >= 3/4), 0 for what
    # only leaks through the softmax (s <= 1/2). The steps need a constant, which comes with the tokens.
    for step, sign in ((2.0, 1.0), (3.0, -1.0)):
        reads = {"found": 4 * eye, "found again": 4 * eye, "one": -step * ones}
        net.neurons(1, reads=reads, writes=sign * eye, to="answer")
    net.answer("answer", 8 * _SAYS)
    return net


def _backup_prompts(n: int, generator: torch.Generator) -> Prompts:
    keys, words, slots = (_symbols(n, N, generator) for _ in range(3))
    records = N * keys.gather(1, slots) + words.gather(1, slots)
    clean = torch.cat([records, _ASK + keys[:, :1]], dim=1)
    corrupted = clean.clone()
    corrupted[:, :-1][slots == 0] = _BLANK
    corrupted[:, -1] = _BLANK
    return clean, corrupted, _SAY + words[:, 0], _SAY + words[:, 1]


BACKUP = Design(
    about=(
        "'k1=w0 k3=w2 k0=w3 k2=w1 k1?' -> w0. Two heads, one in each layer, fetch the word of the asked key, and the "
        "last MLP is satisfied by either: min(1, ...) of their sum. The corrupted prompt is blank where record and "
        "question stood, so that a corrupted path says nothing rather than something else."
    ),
    strings=_RECORD_STRINGS,
    length=5,
    build=_backup_wiring,
    program=lambda row: _SAY + _looked_up(row),
    draw=_backup_prompts,
    graph=PlantedGraph(
        n_layers=2,
        n_heads=4,
        essential=_edges("input->m1 \n m1->logits"),
        alternatives=(
            _edges("input->a0.h0<q> <k> <v> \n a0.h0->m1"),
            _edges("input->a1.h1<q> <k> <v> \n a1.h1->m1"),
        ),
        still=_edges("input->m1"),
    ),
)

DESIGNS = {
    "induction": INDUCTION,
    "previous": PREVIOUS,
    "two-hop": TWO_HOP,
    "distractor": DISTRACTOR,
    "backup": BACKUP,
}
