"""Three planted circuits on records, without positions: ``two-hop``, ``distractor`` and ``backup``."""

# long: five circuits side by side, each a program, its weights and its graph

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.errors import InputError
from interp.toys.planted_design import Design, Prompts, edges, one_hot, orders
from interp.toys.planted_graph import PlantedGraph
from interp.toys.wiring import Wiring

__all__ = ["BACKUP", "DISTRACTOR", "TWO_HOP"]

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
    return strings, {name: one_hot(column, N, len(strings)) for name, column in columns.items()}


_TWO_HOP_STRINGS, _TWO_HOP_FIELDS = _two_hop_fields()


def _two_hop_wiring() -> Wiring:
    found, n_tokens = ("found key", "found word", "answer"), len(_TWO_HOP_STRINGS)
    net = Wiring(dict.fromkeys((*_TWO_HOP_FIELDS, *found), N), d_vocab=n_tokens, n_ctx=10)
    eye = torch.eye(N)
    net.tokens(**_TWO_HOP_FIELDS)
    net.head(0, 0, beta=4.0, q={"name": eye}, k={"key's name": eye}, v={"key": eye}, to="found key")
    net.head(0, 1, beta=4.0, q={"name": eye}, k={"word's name": eye}, v={"word": eye}, to="found word")
    net.head(1, 0, beta=6.0, q={"asked": eye}, k={"found key": eye}, v={"found word": eye}, to="answer")
    net.answer("answer", 8 * one_hot([-1] * (n_tokens - N) + list(range(N)), N, n_tokens).T)
    return net


def _two_hop_prompts(n: int, generator: torch.Generator) -> Prompts:
    names, keys, words = (orders(n, N, generator)[:, :3] for _ in range(3))
    word_slots, key_slots, name_slots = (orders(n, 3, generator) for _ in range(3))
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
        essential=edges(
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
    return {name: one_hot(column, N, len(_RECORD_STRINGS)) for name, column in columns.items()}


_RECORD_FIELDS = _record_fields()
_PARTNER = torch.eye(N).roll(1, 1)
"""[word, partner]: w0 -> w1 -> w2 -> w3 -> w0."""
_SAYS = one_hot([-1] * _SAY + list(range(N)), N, len(_RECORD_STRINGS)).T


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
    keys, words = (orders(n, N, generator)[:, :3] for _ in range(2))
    slots = orders(n, 3, generator)
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
        essential=edges("input->a0.h0<q> <k> <v> \n a0.h0->m0 \n m0->logits"),
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
    keys, words, slots = (orders(n, N, generator) for _ in range(3))
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
        essential=edges("input->m1 \n m1->logits"),
        alternatives=(
            edges("input->a0.h0<q> <k> <v> \n a0.h0->m1"),
            edges("input->a1.h1<q> <k> <v> \n a1.h1->m1"),
        ),
        still=edges("input->m1"),
    ),
)
