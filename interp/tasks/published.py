"""Published circuits: which heads and edges the literature says do a task, each list with its source.

The lists lie in ``references/*.json`` as groups of nodes and connections between groups. Lists of one circuit disagree,
so each is a version of its own.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import InputError, nearest
from interp.showing import Shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Reference", "reference"]

FOLDER = Path(__file__).parent / "references"
_NODE = re.compile(r"a(\d+)\.h(\d+)|m(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Reference(Shown):
    """A published circuit; nodes ``input``, ``a9.h9``, ``m0``, ``logits``; edges ``a0.h1->a5.h5<k>``, ``m0->m1``."""

    task: str
    version: str
    model: str
    """The model it was found in."""
    source: str
    """Where this list stands, with the version read."""
    note: str
    n_layers: int
    n_heads: int
    has_mlps: bool
    roles: Mapping[str, tuple[str, ...]]
    """Which nodes play which part."""
    groups: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = field(repr=False)
    """(sources, destinations, ports) as published: roles, nodes, ``mlps`` (all of them), ``heads`` (all in a role)."""
    edges: tuple[str, ...] = field(repr=False)
    """The groups multiplied out, in the order of the forward pass; empty where only nodes were published."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node with a role or an edge, in the order of the forward pass."""
        ends = {end for edge in self.edges for end in _ends(edge)[:2]}
        return tuple(sorted(ends.union(*self.roles.values()), key=self._order))

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of every attention head."""
        return tuple(_parts(node) for node in self.nodes if node[0] == "a")

    @property
    def versions(self) -> tuple[str, ...]:
        """All versions of this task's circuit."""
        return tuple(_record(self.task)["versions"])

    def role(self, node: str) -> str | None:
        """The part a node plays, or None."""
        return next((role for role, members in self.roles.items() if node in members), None)

    def describe(self) -> dict[str, Any]:
        """Which list this is: JSON-able."""
        return {"task": self.task, "version": self.version, "model": self.model, "source": self.source}

    def to_frame(self) -> pd.DataFrame:
        """A row per edge: source, destination, port, and the roles of both."""
        import pandas as pd

        rows = [(*_ends(edge), *map(self.role, _ends(edge)[:2])) for edge in self.edges]
        columns = ["source", "destination", "port", "source_role", "destination_role"]
        return pd.DataFrame(rows, columns=pd.Index(columns))

    def _order(self, node: str) -> tuple[int, int, int]:
        return _order(node, self.n_layers)


def reference(task: str, *, version: str | None = None) -> Reference:
    """The published circuit of a task.

    Parameters
    ----------
    task
        ``"ioi"``, ``"greater_than"`` (both of GPT-2 small) or ``"docstring"`` (of attn-only-4l).
    version
        Whose list; by default the one of the ACDC repository, the only one with edges in all three tasks.

    Raises
    ------
    InputError
        No circuit is known for the task, or no such version; says which there are.
    """
    known = published()
    if task not in known:
        raise InputError(
            f"no published circuit for task {task!r}{nearest(task, known)} (there are: {', '.join(known)})"
        )
    record = _record(task)
    chosen = version or record["default"]
    if chosen not in record["versions"]:
        versions = record["versions"]
        raise InputError(
            f"no version {chosen!r} of the {task} circuit{nearest(chosen, versions)} (there are: {', '.join(versions)})"
        )
    held = record["versions"][chosen]
    size = {key: record[key] for key in ("n_layers", "n_heads", "has_mlps")}
    roles = {role: tuple(nodes) for role, nodes in held["roles"].items()}
    groups = tuple((tuple(g["from"]), tuple(g["to"]), g.get("ports", "")) for g in held["groups"])
    return Reference(
        task=task,
        version=chosen,
        model=record["model"],
        source=held["source"],
        note=held["note"],
        roles=roles,
        groups=groups,
        edges=_edges(roles, groups, record["n_layers"]),
        **size,
    )


@functools.cache
def published() -> tuple[str, ...]:
    """The tasks of which a circuit is published."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@functools.cache
def _record(task: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{task}.json").read_text("utf-8"))


def _edges(
    roles: Mapping[str, tuple[str, ...]],
    groups: Sequence[tuple[tuple[str, ...], tuple[str, ...], str]],
    n_layers: int,
) -> tuple[str, ...]:
    """All pairs of a group's members of which one writes before the other reads, once per port of a head."""
    every = {"mlps": tuple(f"m{layer}" for layer in range(n_layers))}
    every["heads"] = tuple(node for nodes in roles.values() for node in nodes if node[0] == "a")

    def members(names: Sequence[str]) -> Iterator[str]:
        for name in names:
            yield from roles.get(name) or every.get(name) or (name,)

    found: dict[str, tuple[Any, ...]] = {}
    for sources, destinations, ports in groups:
        for source in members(sources):
            for destination in members(destinations):
                order = (_order(destination, n_layers), _order(source, n_layers))
                if order[1][:2] >= order[0][:2]:
                    continue
                for i, port in enumerate([f"<{p}>" for p in ports] if destination[0] == "a" else [""]):
                    found[f"{source}->{destination}{port}"] = (*order, i)
    return tuple(sorted(found, key=found.__getitem__))


def _order(node: str, n_layers: int) -> tuple[int, int, int]:
    """Where a node stands in the forward pass: (layer, attention 0 or MLP 1, head)."""
    if node in ("input", "logits"):
        return (-1, 0, 0) if node == "input" else (n_layers, 0, 0)
    layer, head = _parts(node)
    return (layer, int(node[0] == "m"), head)


def _parts(node: str) -> tuple[int, int]:
    """Layer and head of ``a9.h9``, or layer and 0 of ``m9``."""
    match = _NODE.fullmatch(node)
    if match is None:
        raise InputError(f"{node!r} is no node; nodes are 'input', 'a9.h9', 'm0' and 'logits'")
    layer, head, mlp = match.groups()
    return (int(mlp), 0) if mlp else (int(layer), int(head))


def _ends(edge: str) -> tuple[str, str, str]:
    """Source, destination and port of an edge's name."""
    source, _, rest = edge.partition("->")
    destination, _, port = rest.partition("<")
    return source, destination, port.rstrip(">")
