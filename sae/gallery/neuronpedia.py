"""The page's JSON twin: a feature a line, in the schema that Neuronpedia's and circuit-tracer's pages read.

Keys: ``index``, ``examples_quantiles`` (each ``quantile_name`` and ``examples`` of ``tokens``, ``tokens_acts_list``,
``train_token_ind``, the peak's place, ``is_repeated_datapoint``), ``top_logits``, ``bottom_logits``, ``act_min``,
``act_max``, ``histogram``, ``quantile_values``, ``activation_frequency``.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.runs.files import atomic_file

if TYPE_CHECKING:
    from sae.gallery.gathering import Features

__all__ = ["feature_records", "write"]


def write(found: Features, path: Path) -> Path:
    """Write every latent that fires to ``path``, gzipped JSON lines, whole or not at all."""
    with atomic_file(path) as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as file:
        for record in feature_records(found):
            line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            file.write(line.encode("utf-8", errors="backslashreplace") + b"\n")
    return path


def feature_records(found: Features) -> Iterator[dict[str, Any]]:
    """One record a latent that fires, in order."""
    examples, codes = found.examples, found.codes
    shown = _Shown(found)
    names = ["Top activations"] + [f"Interval {i + 1}" for i in range(examples.plan.intervals)]
    edges = np.linspace(0, 1, found.histogram.shape[1] + 1)
    begin = np.searchsorted(examples.latent, np.arange(codes.d_sae + 1))
    for latent in np.flatnonzero(codes.counts > 0).tolist():
        groups: list[list[dict[str, Any]]] = [[] for _ in names]
        for i in range(begin[latent], begin[latent + 1]):
            groups[examples.group[i]].append(shown.example(i))
        low, high = found.span[latent]
        record = {
            "index": latent,
            "examples_quantiles": [
                {"quantile_name": name, "examples": group}
                for name, group in zip(names, groups, strict=True)
                if group
            ],
            "top_logits": shown.words("top", latent),
            "bottom_logits": shown.words("bottom", latent),
            "act_min": float(low),
            "act_max": float(high),
            "quantile_values": [float(high * (1 - i / examples.plan.intervals)) for i in range(len(names))],
            "histogram": [found.histogram[latent].tolist(), (low + (high - low) * edges).tolist()],
            "activation_frequency": float(codes.density[latent]),
        }
        if latent in found.explanations:
            record["explanation"] = found.explanations[latent].text
        yield record


class _Shown:
    """Tokens and codes of the examples as plain lists."""

    def __init__(self, found: Features) -> None:
        examples = found.examples
        self.effects = found.effects
        self.show = found.codes.corpus.show
        self.ids = found.codes.ids.tolist()
        self.begin = (examples.row - examples.left).tolist()
        self.left, self.length = examples.left.tolist(), examples.length.tolist()
        self.starts = examples.starts.tolist()
        self.offset = examples.offset.tolist()
        self.value = [round(v, 4) for v in examples.value.tolist()]
        self.known: dict[int, str] = {}

    def text(self, token: int) -> str:
        if token not in self.known:
            self.known[token] = self.show(token)
        return self.known[token]

    def example(self, i: int) -> dict[str, Any]:
        begin, length = self.begin[i], self.length[i]
        acts = [0.0] * length
        for j in range(self.starts[i], self.starts[i + 1]):
            acts[self.offset[j]] = self.value[j]
        return {
            "is_repeated_datapoint": False,
            "train_token_ind": self.left[i],
            "tokens": [self.text(t) for t in self.ids[begin : begin + length]],
            "tokens_acts_list": acts,
        }

    def words(self, end: str, latent: int) -> list[str]:
        if isinstance(self.effects, str):
            return []
        return [self.text(t) for t in getattr(self.effects, end)[latent].tolist()]
