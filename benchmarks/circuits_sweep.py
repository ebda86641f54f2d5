"""What does patching every head cost beside TransformerLens' own sweep?

    python benchmarks/circuits_sweep.py [--layers 12] [--d-model 768] [--heads 12] [--vocab 50257]

A random GPT-2 configuration on one thread, 8 pairs of 20 tokens, the logit difference at the last token; every head's
z at all positions, corrupted into clean. Both sides patch the same module in one process, and their effects are
compared before anything is told. TransformerLens makes one whole pass a head; here a pass begins at the head's layer,
computes logits at the answer's place only, and holds several heads. CPU seconds, the best of the repeats
(TransformerLens: one). JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import time
import warnings
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from circuits import patch_sweep
from interp.tasks import Task


def spent(work: Any, repeats: int) -> tuple[float, Any]:
    """CPU seconds of the process, the best of some repeats, and what came out."""
    best, out = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        out = work()
        best = min(best, time.process_time() - start)
    return best, out


def bridge(network: Any) -> Any:
    """The module as TransformerLens 4 wraps it."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    logging.disable(logging.WARNING)
    made = build_bridge_from_module(network, "GPT2LMHeadModel", hf_config=network.config, tokenizer=None)
    made.eval().enable_compatibility_mode(disable_warnings=True)
    return made


def task(vocab: int) -> Task:
    """8 pairs of 20 random tokens that differ in one."""
    generator = torch.Generator().manual_seed(1)
    clean, other = torch.randint(0, vocab, (2, 8, 20), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 6] = other[:, 6]
    answers = torch.stack([torch.randperm(vocab, generator=generator)[:2] for _ in range(8)])
    return Task(
        name="random", clean=interp.Tokens.full(clean), corrupted=interp.Tokens.full(corrupted),
        answers=answers[:, :1], wrong=answers[:, 1:], measure="logit_difference",
        facts=tuple({} for _ in range(8)), texts=tuple(("", "") for _ in range(8)),
    )  # fmt: skip


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description="A sweep over heads beside TransformerLens'")
    for name, value in (
        ("layers", 12),
        ("d-model", 768),
        ("heads", 12),
        ("vocab", 50257),
        ("rows", 96),
        ("repeats", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=asked.layers, n_embd=asked.d_model, n_head=asked.heads, vocab_size=asked.vocab,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    network: Any = GPT2LMHeadModel(config).eval().requires_grad_(False)
    question = task(asked.vocab)
    model = interp.load(network)
    patch_sweep(model, question, sites="blocks.0.attn.hook_z", mode="noise", n_draws=10)  # warm
    ours, found = spent(
        lambda: patch_sweep(model, question, mode="noise", batch_size=asked.rows, n_draws=10), asked.repeats
    )
    from transformer_lens import patching

    theirs = bridge(network)
    with torch.no_grad():
        _, cache = theirs.run_with_cache(question.corrupted.ids, names_filter=lambda n: n.endswith("hook_z"))

        def sweep() -> torch.Tensor:
            with contextlib.redirect_stderr(io.StringIO()):
                return patching.get_act_patch_attn_head_out_all_pos(
                    theirs, question.clean.ids, cache, lambda logits: question.metric(logits).mean()
                )

        peer, effects = spent(sweep, 1)
    want = effects.double().flatten()
    got = torch.from_numpy(found.patched.mean(1))
    # float32 on both sides; the peer's compatibility mode folds the norms and centres the unembedding
    assert float((got - want).abs().max()) < 1e-4, float((got - want).abs().max())
    line = {
        "benchmark": "circuits_sweep", "layers": asked.layers, "d_model": asked.d_model, "heads": len(want),
        "cpu_seconds": round(ours, 2), "transformer_lens_cpu_seconds": round(peer, 2),
        "times_faster": round(peer / ours, 2), "largest_difference": float((got - want).abs().max()),
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
