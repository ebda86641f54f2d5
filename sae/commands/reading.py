"""What `eval` and `dashboard` read: a coder, its model, and texts with their labels where those are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import InputError, nearest

__all__ = ["Read", "read"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """Ready to be measured."""

    coder: Any
    model: Any
    site: str
    tokens: Any
    labels: dict[str, Any]
    """Empty where nothing is known of the tokens."""
    names: dict[str, Any]
    source: str
    """One phrase: what the tokens are."""


def read(
    coder: Path, model: str, site: str, *, texts: Path | None, max_tokens: int, seed: int, device: str,
    backend: Any = "auto",
) -> Read:  # fmt: skip
    """Load all of it.

    Raises
    ------
    InputError
        No texts for a model that has none of its own, or a site that is several.
    StoreError
        No coder there.
    """
    import sae
    from interp import load
    from interp.study.material import gather
    from interp.toys import language
    from interp.toys.collection import embedded, names

    own = embedded(model) if texts is None and model in names() else None
    if texts is None and own is None:
        raise InputError(
            f"{model} has no texts of its own: give a file with --texts{nearest(model, names())}"
        )
    made = sae.load(coder)
    network = load(model, device=device, backend=backend)
    found = network.find(site)
    if len(found) != 1:
        raise InputError(f"--site {site} names {len(found)} sites; a coder reads one")
    material = gather(network, texts=texts, embedded=own, seed=seed, max_tokens=max_tokens)
    labels = dict(material.labels) if model == "mini" else {}
    return Read(
        coder=made.to(network.device),
        model=network,
        site=str(found[0]),
        tokens=material.tokens,
        labels=labels,
        names=dict(language.LABELS) if labels else {},
        source=material.source,
    )
