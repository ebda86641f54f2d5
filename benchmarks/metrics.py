"""What do all pairs of layers cost, and a whole profile beside the forward passes that made the activations?

    python benchmarks/metrics.py [--part pairs|large|profile|memory|all] [--width 768] [--layers 12]

``pairs``: n = 4096, every pair of layers, against a per-pair Gram library (ckatorch where it installs; else its
algorithm, float64 Grams rebuilt for each pair). ``large``: n = 8192 against Grams kept in memory, and n = 20000 exact
debiased against biased against blocks. ``profile``: a random GPT-2 small, the profile of all layers and blockwise and
exact CKA against the forward passes alone, over 8,192 and 20,480 tokens. ``memory`` (not part of ``all``): a million
rows through one Moments, and the resident memory along the way. CPU seconds of this process, ratios within one run;
JSON lines.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp import Activations, Tokens
from interp.metrics import cka_matrix
from interp.moments import Moments


def features(n: int, d: int, n_layers: int) -> dict[str, Tensor]:
    """Like a residual stream: each layer the last one and a new part, a power-law spectrum, a common mean."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, d + 1).float() ** -0.5
    stream, out = torch.zeros(n, d), {}
    for layer in range(n_layers):
        turn = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
        stream = stream + (torch.randn(n, d, generator=generator) * scale) @ turn
        out[str(layer)] = stream + 3 * turn[0]
    return out


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of ``work``, and what it returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def record(**fields: Any) -> None:
    """One line of JSON."""
    print(json.dumps({"benchmark": "metrics"} | fields), flush=True)


def per_pair(x: Tensor, y: Tensor) -> float:
    """One pair as ckatorch does it: float64 Grams, centred, rebuilt for each pair."""
    grams = []
    for a in (x, y):
        gram = a.double() @ a.double().T
        grams.append(gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean())
    return float((grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm()))


def peer() -> tuple[str, Callable[[Tensor, Tensor], float]]:
    """ckatorch, or the same algorithm."""
    try:
        from ckatorch.core import cka_base  # type: ignore[import-not-found]
    except ImportError:
        return "float64 Gram per pair (ckatorch's algorithm)", per_pair
    return "ckatorch", lambda x, y: float(cka_base(x, y, "linear"))


def cached_grams(acts: dict[str, Tensor]) -> np.ndarray:
    """One centred float32 Gram a layer, kept: n^2 memory a layer."""
    flat = []
    for x in acts.values():
        x = x - x.mean(0)
        flat.append((x @ x.T).flatten())
    table = np.array([[float(torch.dot(a, b)) for b in flat] for a in flat])
    return table / np.sqrt(np.outer(table.diagonal(), table.diagonal()))


def pairs(d: int, n_layers: int) -> None:
    """All pairs at n = 4096."""
    acts = features(4096, d, n_layers)
    name, other = peer()
    some = list(combinations_with_replacement(acts, 2))
    seconds, values = spent(lambda: [other(acts[a], acts[b]) for a, b in some[:4]])
    biased = cka_matrix(acts, unbiased=False, n_blocks=0)
    mine = [biased.value[int(a), int(b)] for a, b in some[:4]]
    np.testing.assert_allclose(mine, values, atol=1e-5)
    for blocks in (0, 16):
        cost, _ = spent(lambda blocks=blocks: cka_matrix(acts, n_blocks=blocks))
        record(
            case="all pairs, n = 4096", d=d, layers=n_layers, jackknife_blocks=blocks, cpu_seconds=round(cost, 2),
            peer=name, peer_cpu_seconds=round(seconds / 4 * len(some), 2),
            ratio=round(seconds / 4 * len(some) / cost, 1),
        )  # fmt: skip


def large(d: int, n_layers: int) -> None:
    """n = 8192 against cached Grams; n = 20000 exact debiased, biased, and blocks."""
    acts = features(8192, d, n_layers)
    gram, theirs = spent(lambda: cached_grams(acts))
    mine, ours = spent(lambda: cka_matrix(acts, unbiased=False, n_blocks=0))
    np.testing.assert_allclose(
        ours.value, theirs, atol=2e-2
    )  # a float32 dot of 67 million entries loses digits
    record(
        case="all pairs, n = 8192",
        cached_gram=round(gram, 2),
        exact=round(mine, 2),
        ratio=round(gram / mine, 2),
    )
    del acts
    acts = features(20000, d, n_layers)
    biased, _ = spent(lambda: cka_matrix(acts, unbiased=False, n_blocks=0))
    fair, exact = spent(lambda: cka_matrix(acts, n_blocks=0))
    quick, blocks = spent(lambda: cka_matrix(acts, method="blocks"))
    error = np.abs(blocks.value - exact.value)[np.triu_indices(n_layers, 1)]
    band = np.asarray(blocks.stderr)[np.triu_indices(n_layers, 1)]
    record(
        case="all pairs, n = 20000", biased=round(biased, 2), debiased=round(fair, 2), blocks=round(quick, 2),
        debiased_over_biased=round(fair / biased, 3), exact_over_blocks=round(fair / quick, 1),
        worst_block_error=float(error.max()), worst_error_in_standard_errors=round(float((error / band).max()), 2),
    )  # fmt: skip


class Replay:
    """A model whose passes cost nothing: it hands out what another one held, batch by batch."""

    name, d_vocab = "replay", 50257

    def __init__(self, held: Activations, n_layers: int) -> None:
        self.held, self.n_layers, self.at = held, n_layers, 0

    def find(self, sites: Any) -> tuple[Any, ...]:
        return tuple(self.held)

    def capture(self, part: Tokens, sites: Any, **options: Any) -> Activations:
        start, self.at = self.at, self.at + len(part)
        cut = {site: x[start : self.at] for site, x in self.held.items()}
        return Activations(tensors=cut, mask=part.mask)


def profile(d: int, n_layers: int) -> None:
    """The profile, blocks and exact CKA beside bare forward passes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    import interp
    from interp.metrics import layer_profile

    config = GPT2Config(n_layer=n_layers, n_embd=d, n_head=max(1, d // 64), n_positions=128)
    network = GPT2LMHeadModel(config).eval()
    model = interp.load(network, prove=False)
    tokens = Tokens.full(torch.randint(0, 50257, (160, 128), generator=torch.Generator().manual_seed(0)))
    sites = [f"blocks.{layer}.hook_resid_post" for layer in range(n_layers)]
    held = model.capture(tokens, sites, batch_size=8)

    def bare(n_sequences: int) -> None:
        with torch.no_grad():
            for part in tokens[:n_sequences].batches(8):
                network(part.ids, use_cache=False)

    bare(8)  # what is only done once
    layer_profile(Replay(held, n_layers), tokens[:8], sites, parts=1)
    cases = {
        f"{rows * 128} tokens{errors}": (rows, parts)
        for rows in (64, 160)
        for errors, parts in (("", 1), (", with errors", 4))
    }
    seconds, forward = dict.fromkeys(cases, 0.0), 0.0
    for _ in range(2):  # in turns, since other work on the machine changes the speed of all of it
        forward += 4 * spent(lambda: bare(16))[0]
        for name, (rows, parts) in cases.items():
            replay = Replay(held, n_layers)
            seconds[name] += spent(
                lambda r=replay, n=rows, p=parts: layer_profile(r, tokens[:n], sites, parts=p)
            )[0]
    record(
        case="profile", layers=n_layers, d=d, forward_seconds_of_8192=round(forward / 2, 2),
        profile_beyond_capture_over_forward={
            name: round(seconds[name] / (forward * cases[name][0] / 64), 3) for name in cases
        },
    )  # fmt: skip
    n = 64 * 128
    acts = {str(s): x.flatten(0, 1)[:n] for s, x in held.tensors.items()}
    _pair_costs(acts, d, forward / 2)


def _pair_costs(acts: dict[str, Tensor], d: int, forward: float) -> None:
    """Moments alone, blockwise CKA and every cross block, beside the passes and beside their products alone."""
    n, n_layers = len(next(iter(acts.values()))), len(acts)

    def moments(**options: Any) -> Moments:
        made = Moments({site: d for site in acts}, **options)
        for start in range(0, n, 1024):
            made.update({site: x[start : start + 1024] for site, x in acts.items()})
        _ = made.sums
        return made

    sums, _ = spent(lambda: moments(block=0))
    blocks, _ = spent(lambda: cka_matrix(moments(twin=False, block=128), method="blocks"))
    plain, _ = spent(lambda: moments(twin=False, block=0))
    exact, _ = spent(lambda: moments(twin=False, block=0, cross=True))
    square = torch.randn(1024, d)
    product, _ = spent(lambda: [square.T @ square for _ in range(40)])
    floor = product / 40 * (n / 1024) * n_layers * (n_layers + 1) / 2
    record(
        case="pairs beside the passes", tokens=n, moments_over_forward=round(sums / forward, 3),
        block_cka_over_forward=round((blocks - plain) / forward, 3),
        exact_cross_over_forward=round(exact / forward, 3),
        exact_mflop_a_token=round(2 * d * d * n_layers * (n_layers + 1) / 2 / 1e6, 1),
        exact_over_its_products=round(exact / floor, 2),
    )  # fmt: skip


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def memory(d: int, n_layers: int, n: int = 1_000_000, chunk: int = 2000) -> None:
    """A million rows of every site through one Moments: resident memory at every tenth, sums stated before."""
    generator = torch.Generator().manual_seed(0)
    pool = {str(layer): torch.randn(chunk, d, generator=generator) for layer in range(n_layers)}
    made = Moments({site: d for site in pool})
    start, seen = time.process_time(), []
    for step in range(n // chunk):
        size = torch.rand(chunk, 1, generator=generator) + 0.5  # new rows each time, at little cost
        made.update({site: 3 + size * x for site, x in pool.items()})
        if (step + 1) * chunk % (n // 10) == 0:
            seen.append(round(resident() / 1e6))
            print(json.dumps({"rows": made.n, "resident_mb": seen[-1]}), flush=True)
    record(
        case="memory", rows=made.n, layers=n_layers, d=d, stated_mb=round(made.config.n_bytes / 1e6),
        resident_mb=seen, growth_mb=seen[-1] - seen[0], cpu_seconds=round(time.process_time() - start),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", default="all", choices=("pairs", "large", "profile", "memory", "all"))
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for part in (pairs, large, profile, memory):
        if asked.part == part.__name__ or (asked.part == "all" and part is not memory):
            part(asked.width, asked.layers)


if __name__ == "__main__":
    main()
