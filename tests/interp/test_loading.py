"""Models from folders, the hub cache and memory; real weights reproduce what others recorded of them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from tests.models import BACKENDS, TinyNet, ids, quiet, random_model

RECORDED = {  # the recorder's name -> our site, in block 0 where it names no block
    "tok_emb": "hook_embed",
    "x": "blocks.0.hook_resid_pre",
    "ln1": "blocks.0.ln1.hook_out",
    "q": "blocks.0.attn.hook_q",
    "k": "blocks.0.attn.hook_k",
    "v": "blocks.0.attn.hook_v",
    "att": "blocks.0.attn.hook_attn_scores",
    "attSm": "blocks.0.attn.hook_pattern",
    "y": "blocks.0.attn.hook_z",
    "yProj": "blocks.0.hook_attn_out",
    "attnResid": "blocks.0.hook_resid_mid",
    "ln2": "blocks.0.ln2.hook_out",
    "fc": "blocks.0.mlp.hook_pre",
    "gelu": "blocks.0.mlp.hook_post",
    "mlp": "blocks.0.hook_mlp_out",
    "mlpResid": "blocks.0.hook_resid_post",
    "block0": "blocks.0.hook_resid_post",
    "block1": "blocks.1.hook_resid_post",
    "block2": "blocks.2.hook_resid_post",
    "ln_f": "ln_final.hook_out",
    "lm_head": "unembed.hook_out",
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_recorded_activations_of_the_sorting_network_are_reproduced(shared: Path, backend: str) -> None:
    folder = shared / "models" / "gpt-nano-sort"
    recorded = load_file(folder / "recorded_activations.safetensors")
    with quiet():
        model = interp.load(folder, backend=backend)
    acts = model.capture(recorded["idx"].long(), list(set(RECORDED.values())))
    for name, site in RECORDED.items():
        got, expected = acts[site], recorded[name]
        if name in ("q", "k", "v"):
            got = got.transpose(1, 2)  # recorded with heads before positions
        if name == "y":
            got = got.flatten(-2)
        seen = torch.isfinite(expected)  # masked scores were recorded as -inf
        assert (got[seen] - expected[seen]).abs().max() <= 1e-5, name
    position = model.capture(recorded["idx"].long(), "hook_pos_embed")["hook_pos_embed"]
    assert (position - recorded["pos_emb"]).abs().max() <= 1e-5
    assert (model.logits(recorded["idx"].long()).softmax(-1) - recorded["probs"]).abs().max() <= 1e-5
    split = recorded["qkv"].split(48, dim=-1)
    for part, kind in zip(split, "qkv", strict=True):
        assert (acts[f"blocks.0.attn.hook_{kind}"].flatten(-2) - part).abs().max() <= 1e-5


def test_the_sorting_network_sorts_every_input(shared: Path) -> None:
    model = interp.load(shared / "models" / "gpt-nano-sort")
    inputs = torch.tensor(list(itertools.product(range(3), repeat=6)))
    # five new tokens fill the context of 11; the sixth output is read off the full context's last logits
    made = model.generate(inputs, max_new_tokens=5)
    last = model.logits(made)[:, -1].argmax(-1, keepdim=True)
    answers = torch.cat([made.ids[:, 6:], last], dim=1)
    assert int((answers == inputs.sort(dim=1).values).all(1).sum()) == 729


def test_stories260k_has_its_published_loss_and_begins_its_story(shared: Path) -> None:
    model = interp.load(shared / "models" / "stories260k")
    lines = (shared / "corpora" / "tinystories.jsonl").read_text().splitlines()[:60]
    total, count = 0.0, 0
    for line in lines:
        tokens = model.tokens(json.loads(line)["text"], truncate=True)
        assert int(tokens.ids[0, 0]) == 1  # the beginning of sequence
        losses = torch.nn.functional.cross_entropy(
            model.logits(tokens)[0, :-1], tokens.ids[0, 1:], reduction="none"
        )
        total, count = total + float(losses.sum()), count + losses.numel()
    assert total / count == pytest.approx(1.42, abs=0.03)
    story = model.generate(torch.tensor([[1]]), max_new_tokens=60, stop_at_eos=False)
    text = model.tokenizer.decode(story.ids[0], skip_special_tokens=True)
    assert text.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    )


def test_real_weights_agree_across_backends(shared: Path) -> None:
    models = {}
    for backend in BACKENDS:
        with quiet():
            models[backend] = interp.load(shared / "models" / "stories260k", backend=backend)
    tokens = models["transformers"].tokens(["Once upon a time there was a cat.", "The dog ran"])
    expected = models["transformers"].capture(tokens, "*")
    real = tokens.mask
    for backend, model in models.items():
        torch.testing.assert_close(
            model.logits(tokens)[real], models["transformers"].logits(tokens)[real], atol=1e-4, rtol=0
        )
        for site in (s for s in model.sites if s in expected and s.kind not in ("attn_scores", "pattern")):
            got = model.capture(tokens, site)[site]
            torch.testing.assert_close(
                got[real], expected[site][real], atol=1e-4, rtol=0, msg=f"{backend} {site}"
            )


def test_a_saved_folder_loads_with_its_tokenizer_and_without(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "a": 1, "cat": 2, "sat": 3, "<unk>": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    module = random_model("gpt2")
    with quiet():
        module.save_pretrained(tmp_path)
        assert interp.load(tmp_path).tokenizer is None
        fast.save_pretrained(tmp_path)
        model = interp.load(tmp_path)
    tokens = model.tokens(["a cat sat", "cat"])
    assert tokens.ids.tolist() == [[0, 1, 2, 3], [0, 2, 0, 0]]
    assert tokens.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert tokens.strings[0] == ["<s>", "a", "cat", "sat"]
    assert model.tokens("cat", prepend_bos=False).ids.tolist() == [[2]]
    with pytest.raises(interp.InputError, match="text 1 is empty"):
        model.tokens(["a", "  "])
    with pytest.raises(interp.InputError, match="takes at most 24"):
        model.tokens("a " * 40)
    assert model.tokens("a " * 40, truncate=True).ids.shape == (1, 24)
    assert torch.equal(model.logits(ids(), edits=[]), interp.load(module).logits(ids()))


def test_a_hub_name_loads_from_the_hub_cache_without_a_network(tmp_path: Path) -> None:
    snapshot = (
        tmp_path / "hub" / "models--someone--tiny" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    )
    refs = tmp_path / "hub" / "models--someone--tiny" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(snapshot.name)
    with quiet():
        random_model("llama").save_pretrained(snapshot)
    code = (
        "import interp, torch\n"
        "m = interp.load('someone/tiny')\n"
        "print(m.capture(torch.tensor([[1, 2, 3]]), 'blocks.2.hook_resid_post')['blocks.2.hook_resid_post'].shape)\n"
        "try: interp.load('someone/absent')\n"
        "except interp.ModelError as e: print(e)\n"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    env.pop("HF_HUB_CACHE", None)
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    shape, refusal = ran.stdout.strip().splitlines()[-2:]
    assert shape == "torch.Size([1, 3, 32])"
    assert "cannot load model 'someone/absent': HF_HUB_OFFLINE=1 and it is not in the hub cache" in refusal


def test_a_model_placed_by_accelerate_gives_the_same_numbers(tmp_path: Path) -> None:
    module = random_model("gpt2")
    with quiet():
        module.save_pretrained(tmp_path / "model")
        placed = interp.load(
            tmp_path / "model",
            device_map={
                "transformer.wte": "cpu",
                "lm_head": "cpu",
                "transformer.wpe": "cpu",
                "transformer.ln_f": "cpu",
                "transformer.h.0": "cpu",
                "transformer.h.1": "disk",
                "transformer.h.2": "cpu",
            },
            offload_folder=tmp_path / "offload",
        )
        whole = interp.load(module)
    site = "blocks.1.hook_resid_post"
    assert torch.equal(placed.logits(ids()), whole.logits(ids()))
    assert torch.equal(placed.capture(ids(), site)[site], whole.capture(ids(), site)[site])
    edit = interp.ablate("blocks.1.attn.hook_result", head=1)  # its weights are on disk
    torch.testing.assert_close(placed.logits(ids(), edits=[edit]), whole.logits(ids(), edits=[edit]))
    assert placed.fingerprint() == whole.fingerprint()


def test_the_fingerprint_tells_weights_apart_and_nothing_else() -> None:
    with quiet():
        first, again, other = (interp.load(random_model("gpt2", seed=s)) for s in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    described = first.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["weights_sha256"] == first.fingerprint()


def test_nan_in_weights_is_refused_by_name(tmp_path: Path) -> None:
    module = random_model("gpt2")
    with quiet():
        module.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.1.ln_2.weight"][3] = torch.nan
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with (
        quiet(),
        pytest.raises(interp.CheckError, match=r"1 non-finite values in 'transformer.h.1.ln_2.weight'"),
    ):
        interp.load(tmp_path)


def test_an_adapter_that_fails_its_proof_is_refused() -> None:
    class Noisy(torch.nn.Module):
        """Changes with every call, as a module does whose dropout ignores evaluation mode."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + torch.rand(())

    from interp.models.audit import prove

    with pytest.raises(interp.CheckError, match="not deterministic"):
        prove(interp.load(Noisy()), tokens=torch.zeros(2, 3))
    prove(interp.load(TinyNet()), tokens=torch.randn(2, 6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: interp.load(p / "nowhere"), "no folder"),
        (lambda p: interp.load(p), "holds no config.json"),
        (lambda p: interp.load(p / "file.txt"), "is a file"),
        (lambda p: interp.load("group:C5999"), "group:C5999"),
        (lambda p: interp.load(3), "cannot load a int"),
        (lambda p: interp.load(TinyNet(), backend="transformers"), "no transformers model"),
        (lambda p: interp.load(TinyNet(), backend="transformer_lens"), "bridges transformers models"),
        (lambda p: interp.load(TinyNet(), device="cpu"), "move the module itself"),
        (lambda p: interp.load("group:C59", device="tpu7"), "no device 'tpu7'"),
        (lambda p: interp.load("group:C59", dtype="float31"), "no dtype 'float31'; did you mean 'float32'"),
        (lambda p: interp.load(TinyNet(), remote=True), "does not apply to backend"),
        (lambda p: interp.load(p / "foreign"), "names the class 'NoSuchLMHeadModel'"),
        (lambda p: interp.load(p / "broken"), "cannot load a model from folder"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(tmp_path: Path, make, message: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    for name, config in (
        ("foreign", {"model_type": "gpt2", "architectures": ["NoSuchLMHeadModel"]}),
        ("broken", {}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    with pytest.raises(interp.ModelError, match=message):
        make(tmp_path)


def test_words_outside_a_closed_choice_are_refused_with_the_nearest() -> None:
    """In a process of its own: here the type checker would answer first."""
    code = """
import torch, interp
net = torch.nn.Linear(3, 3)
for call in (
    lambda: interp.load(net, backend="transformer"),
    lambda: interp.ablate("x", how="median"),
    lambda: interp.ablate("x", how="mean", reference=torch.zeros(2, 2), over="rows"),
    lambda: interp.load(net).logits(torch.zeros(2, 3), edits=["zero"]),
):
    try: call()
    except interp.InterpError as error: print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = ran.stdout.splitlines()
    assert said[0] == "no backend 'transformer'; did you mean 'transformers', 'transformer_lens'?"
    assert said[1] == "ablation how='median'; it is 'zero', 'mean' or 'resample'"
    assert said[2] == "mean over='rows'; it is 'all' or 'position'"
    assert said[3] == "edits= takes Edit objects (interp.ablate, interp.patch, ...); got str"
