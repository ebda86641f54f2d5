"""The nnsight backend keeps the batch, and its remote way works without a server (nnsight's local simulation)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import interp
from tests.models import ids, loaded, quiet, shared_model

REMOTE = """
import warnings; warnings.simplefilter("ignore")
import torch, interp
from nnsight.modeling.transformers import TransformersModel
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from tests.models import ids, random_model

module = random_model("gpt2")
words = Tokenizer(models.WordLevel({str(i): i for i in range(50)}, unk_token="0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="0", unk_token="0", pad_token="0", eos_token="1")
there = interp.load(TransformersModel(module, tokenizer=tokenizer, task="text-generation"), remote="local")
here = interp.load(module)
edits = [interp.ablate("blocks.1.attn.hook_result", head=2), interp.add("blocks.0.hook_resid_mid", torch.ones(32))]
assert torch.equal(there.logits(ids(), edits=edits), here.logits(ids(), edits=edits))
assert not torch.equal(here.logits(ids(), edits=edits), here.logits(ids()))
sites = [str(s) for s in there.sites]
assert not any("pattern" in s for s in sites), "patterns are out of reach there"
got, expected = there.capture(ids(), sites), here.capture(ids(), sites)
assert all(torch.equal(got[s], expected[s]) for s in sites)
print("the same", len(sites))
"""


def test_a_remote_run_gives_the_same_numbers(root: Path) -> None:
    """In a process of its own: the request ships this package's source, which the type checker would wrap."""
    ran = subprocess.run([sys.executable, "-c", REMOTE], capture_output=True, text=True, cwd=root)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.strip().splitlines()[-1] == "the same 60"


def test_the_first_of_a_bare_tensor_is_not_taken() -> None:
    """transformers 5 returns a block's tensor bare: the customary output[0] would be the first row of the batch."""
    model = loaded("gpt2", "nnsight")
    for site in (
        "blocks.0.hook_resid_post",
        "blocks.0.hook_attn_out",
        "transformer.h.0",
        "transformer.h.0.attn",
    ):
        assert model.capture(ids(3, 5), site)[site].shape == (3, 5, 32), site


def test_an_nnsight_model_is_taken_as_it_is() -> None:
    import nnsight

    module = shared_model("gpt2")
    with quiet():
        model = interp.load(nnsight.NNsight(module))
    assert model.backend == "nnsight"
    assert torch.equal(model.logits(ids()), loaded("gpt2", "transformers").logits(ids()))
    plain = interp.load(nnsight.NNsight(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))))
    acts = plain.capture(torch.ones(5, 3), "0")
    assert acts["0"].shape == (5, 4)


def test_what_nnsight_cannot_do_is_refused() -> None:
    with pytest.raises(interp.ModelError, match="remote runs need a model that NDIF knows"):
        interp.load(shared_model("gpt2"), backend="nnsight", remote=True)
    model = loaded("gpt2", "nnsight")
    with pytest.raises(interp.SiteError, match="single calls"):
        model.capture(ids(), "transformer.h.0#0")
    made = model.generate(ids(), max_new_tokens=3)  # without a cache, the long way
    assert torch.equal(made.ids, loaded("gpt2", "transformers").generate(ids(), max_new_tokens=3).ids)


def test_nnsights_save_on_every_object_does_not_hide_ours() -> None:
    import nnsight  # noqa: F401 - importing it is what mounts `.save` on object

    import sae

    assert sae.save.__module__ == "sae"
