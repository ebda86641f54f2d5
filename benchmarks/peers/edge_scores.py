"""Do edge scores equal those of the published packages? Recomputes `tests/data/peers/edge_scores.json`.

    python benchmarks/peers/edge_scores.py --out tests/data/peers/edge_scores.json

Runs in an environment of its own, with transformer-lens 3.8 (of the last versions with HookedTransformer) and
circuitkit, whose edge scores are the EAP-IG package's code, which is not on PyPI itself:

    pip install torch transformers tqdm einops
    pip install --no-deps circuitkit==0.2.0 transformer-lens==3.8.0 better-abc matplotlib

Both are called unchanged but for tokenising, since the prompts are ids. The network is a GPT-2 of three layers with
weights from a seeded numpy generator, so that the tests make the same one from the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHAPE: dict[str, Any] = {"n_layer": 3, "n_embd": 24, "n_head": 3, "n_positions": 12, "vocab_size": 40}
_ENDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
STEPS = 5
METHODS = ("EAP", "EAP-IG-inputs", "clean-corrupted", "EAP-IG-activations", "information-flow-routes")
ROUTES = METHODS[-1]


def network(*, positions: bool = True) -> Any:
    """The GPT-2 both sides score, in evaluation mode; its position embedding zero if asked.

    The package's input node is the token embedding alone: what it makes of shares of a stream is ours only without
    the positions. Differences between two prompts do not contain them.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    made = GPT2LMHeadModel(GPT2Config(**SHAPE, **_ENDS)).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters()):
            values = torch.from_numpy(rng.standard_normal(tuple(parameter.shape))).float()
            norm = ".ln_" in name and name.endswith("weight")
            parameter.copy_(1 + 0.2 * values if norm else 0.35 * values)
        if not positions:
            made.transformer.wpe.weight.zero_()
    return made.requires_grad_(False)


def prompts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean and corrupted ids [6, 8] and, for each pair, the two tokens whose logits are compared."""
    rng = np.random.default_rng(1)
    clean, other = (torch.from_numpy(rng.integers(0, SHAPE["vocab_size"], (6, 8))) for _ in range(2))
    corrupted = torch.where(torch.arange(8) < 5, other, clean)
    return clean, corrupted, torch.from_numpy(rng.integers(0, SHAPE["vocab_size"], (6, 2)))


def difference(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[batch] the logit difference at the last token."""
    right, wrong = logits[:, -1].gather(1, labels).T
    return right - wrong


def hooked(module: Any) -> Any:
    """The same network as a HookedTransformer, nothing folded."""
    import transformer_lens
    from transformer_lens.pretrained.weight_conversions import gpt2  # pyright: ignore[reportMissingImports]

    lens: Any = transformer_lens  # another version than this repository's own
    d, heads = SHAPE["n_embd"], SHAPE["n_head"]
    config = lens.HookedTransformerConfig(
        n_layers=SHAPE["n_layer"], d_model=d, n_heads=heads, d_head=d // heads, d_mlp=4 * d,
        n_ctx=SHAPE["n_positions"], d_vocab=SHAPE["vocab_size"], act_fn="gelu_new", normalization_type="LN",
        use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=True,
    )  # fmt: skip
    made = lens.HookedTransformer(config).eval()
    made.load_state_dict(gpt2.convert_gpt2_weights(module, config), strict=False)
    return made


def peer_scores(models: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Every method's score of every edge, by name."""
    from circuitkit.backends.eap import attribute as peer  # pyright: ignore[reportMissingImports]
    from circuitkit.backends.eap.graph import Graph  # pyright: ignore[reportMissingImports]

    clean, corrupted, labels = prompts()

    def whole(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.ones_like(ids)
        return mask, mask.sum(1)

    def pair(model: Any, clean: torch.Tensor, corrupted: torch.Tensor, **options: Any) -> tuple[Any, ...]:
        mask, lengths = whole(clean)
        return clean, corrupted, mask, mask, lengths, clean.shape[1]

    def tokenize(model: Any, ids: torch.Tensor, **options: Any) -> tuple[Any, ...]:
        return ids, *whole(ids), ids.shape[1]

    peer.tokenize_batch_pair = pair
    peer.tokenize_plus = tokenize
    batches = [(clean, corrupted, labels)]

    def summed(logits: torch.Tensor, clean_logits: Any, lengths: Any, label: torch.Tensor) -> torch.Tensor:
        return difference(logits, label).sum()

    found: dict[str, dict[str, float]] = {}
    for method, model in models.items():
        graph = Graph.from_model(model)
        with contextlib.redirect_stderr(io.StringIO()):
            peer.attribute(model, graph, batches, summed, method=method, ig_steps=STEPS, quiet=True)
        found[method] = {name: float(edge.score) for name, edge in graph.edges.items()}
    return found


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(
        description="Edge scores of the published package on a small random GPT-2"
    )
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    warnings.filterwarnings("ignore")
    import circuitkit  # noqa: F401  # pyright: ignore[reportMissingImports]  (before transformer_lens, as it asks)

    clean, _, _ = prompts()
    models = {}
    for method in METHODS:
        module = network(positions=method != ROUTES)
        models[method] = hooked(module)
        # the two forms are one network: nothing is told of the scores of another
        assert float((models[method](clean) - module(clean).logits).abs().max()) < 1e-4
    versions = {
        name: importlib.metadata.version(name) for name in ("transformer-lens", "circuitkit", "torch")
    }
    record = {"versions": versions, "steps": STEPS, "scores": peer_scores(models)}
    out.write_text(json.dumps(record, separators=(",", ":")))


if __name__ == "__main__":
    main()
