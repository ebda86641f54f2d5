"""The published circuits against their lists written out another way, and against their authors' counts."""

from __future__ import annotations

import pytest

from interp.errors import InputError
from interp.tasks import reference
from interp.tasks.published import published

PREVIOUS, DUPLICATE = ["2.2", "4.11"], ["0.1", "0.10", "3.0"]
INDUCTION, INHIBITION = ["5.5", "5.8", "5.9", "6.9"], ["7.3", "7.9", "8.6", "8.10"]
MOVERS, NEGATIVE = ["9.9", "10.0", "9.6"], ["10.7", "11.10"]
BACKUP = ["10.10", "10.6", "10.2", "10.1", "11.2", "9.7", "9.0", "11.9"]
LAST = [*MOVERS, *NEGATIVE, *BACKUP]


def named(heads: list[str]) -> set[str]:
    return {"a{}.h{}".format(*head.split(".")) for head in heads}


def layer(head: str) -> int:
    return int(head.split(".")[0])


def test_the_indirect_object_circuit_has_its_26_heads_by_role() -> None:
    found = reference("ioi")
    assert (found.model, found.version, len(found.heads)) == ("gpt2", "acdc", 26)
    assert {role: set(nodes) for role, nodes in found.roles.items()} == {
        "previous token": named(PREVIOUS),
        "duplicate token": named(DUPLICATE),
        "induction": named(INDUCTION),
        "s-inhibition": named(INHIBITION),
        "name mover": named(MOVERS),
        "backup name mover": named(BACKUP),
        "negative name mover": named(NEGATIVE),
    }
    assert found.role("a9.h9") == "name mover"
    assert found.role("m3") is None
    assert (9, 9) in found.heads


def between_groups() -> set[str]:
    """Who reads whom, head by head."""
    edges = set()
    for head in (*PREVIOUS, *DUPLICATE, *INDUCTION, *INHIBITION, *LAST):
        ports = "qkv" if head in (*PREVIOUS, *DUPLICATE) else "q" if head in INHIBITION else "kv"
        (name,) = named([head])
        if head not in INDUCTION:
            before = ["input", *(f"m{i}" for i in range(layer(head)))]
            edges |= {f"{source}->{name}<{port}>" for source in before for port in ports}
        feeders = {"i": PREVIOUS, "s": [*INDUCTION, *DUPLICATE], "l": INHIBITION}
        kind = "i" if head in INDUCTION else "s" if head in INHIBITION else "l" if head in LAST else None
        for feeder in feeders.get(kind or "", []):
            if layer(feeder) < layer(head):
                (source,) = named([feeder])
                edges |= {f"{source}->{name}<{port}>" for port in ("q" if kind == "l" else "kv")}
        if head in LAST:
            edges |= {f"{name}->logits", *(f"{name}->m{i}" for i in range(layer(head), 12))}
    return edges


def test_the_groups_are_multiplied_out_as_they_are_published() -> None:
    found = reference("ioi", version="groups")
    assert set(found.edges) == between_groups()
    assert len(found.edges) == len(set(found.edges)) == 524


def test_the_whole_list_adds_what_the_code_leaves_standing_and_has_its_count() -> None:
    found = reference("ioi")
    rest = {"input->logits"}
    for i in range(12):
        rest |= {f"input->m{i}", f"m{i}->logits", *(f"m{i}->m{j}" for j in range(i + 1, 12))}
        for at, head in found.heads:
            if i < at:
                rest |= {f"m{i}->a{at}.h{head}<{port}>" for port in "qkv"}
            else:
                rest.add(f"a{at}.h{head}->m{i}")
    assert set(found.edges) == between_groups() | rest
    assert len(found.edges) + 3 * 26 == 1041  # the authors' count has three edges inside each head


def test_the_greater_than_circuit_is_its_list() -> None:
    found = reference("greater_than")
    mid = [(5, 5), (6, 1), (6, 9), (7, 10), (8, 11), (9, 1)]
    edges = {f"input->m{i}" for i in range(4)} | {f"input->a0.h{h}<{p}>" for h in (1, 3, 5) for p in "qkv"}
    edges |= {f"a0.h1->m{i}" for i in range(4)}
    edges |= {f"m{i}->m{j}" for i in range(9) for j in range(i + 1, 9)}
    edges |= {f"m{i}->m{j}" for i in range(8, 12) for j in range(i + 1, 12)} | {
        f"m{i}->logits" for i in range(8, 12)
    }
    for at, head in mid:
        name = f"a{at}.h{head}"
        edges |= {f"{name}->logits", *(f"{name}->m{i}" for i in range(8, 12) if i >= at)}
        edges |= {f"a0.h{h}->{name}<{p}>" for h in (1, 3, 5) for p in "qkv"}
        edges |= {f"m{i}->{name}<{p}>" for i in range(4) for p in "qkv"}
        edges |= {f"m{i}->{name}<q>" for i in range(at)}
    assert set(found.edges) == edges
    assert found.heads == ((0, 1), (0, 3), (0, 5), *mid)
    assert {node for node in found.nodes if node[0] == "m"} == {f"m{i}" for i in range(12)}
    assert reference("greater_than", version="sae-circuits").heads == found.heads


def test_both_docstring_lists_are_kept_apart() -> None:
    found, other = reference("docstring"), reference("docstring", version="auto-circuit")
    assert found.model == "attn-only-4l"
    assert not found.has_mlps
    assert len(found.edges) + 13 == 37  # 13 entries of the published list lie inside heads
    assert set(found.edges) - set(other.edges) == {"input->a2.h0<k>"}
    assert len(other.edges) == 23
    assert {"a1.h4->a3.h0<q>", "a2.h0->a3.h6<k>", "a1.h4->a2.h0<v>", "a3.h6->logits"} <= set(found.edges)
    heads = {v: set(reference("docstring", version=v).heads) for v in ("acdc", "sae-circuits")}
    assert heads["acdc"] ^ heads["sae-circuits"] == {(1, 2), (1, 0)}
    ours, theirs = set(reference("ioi").heads), set(reference("ioi", version="sae-circuits").heads)
    assert (ours - theirs, theirs - ours) == ({(9, 0)}, {(11, 3)})


@pytest.mark.parametrize("task", published())
def test_every_version_names_its_source_and_runs_forward(task: str) -> None:
    for version in reference(task).versions:
        found = reference(task, version=version)
        assert len(found.source) > 20
        assert found.describe()["source"] == found.source
        places = {node: i for i, node in enumerate(found.nodes)}
        frame = found.to_frame()
        assert len(frame) == len(found.edges)
        for row in frame.itertuples():
            assert places[row.source] < places[row.destination]
            assert (row.port != "") == (row.destination[0] == "a")
        for at, head in found.heads:
            assert at < found.n_layers
            assert head < found.n_heads


def test_an_unknown_task_or_version_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"'docstrings'; did you mean 'docstring'\? \(there are: docstring, greater_than"
    ):
        reference("docstrings")
    with pytest.raises(InputError, match="no version 'acdb' of the ioi circuit; did you mean 'acdc'"):
        reference("ioi", version="acdb")
