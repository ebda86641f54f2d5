"""The end-to-end loss has the gradient of a model that reads on from what the coder wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

import interp
import sae
from interp.errors import InputError, StoreError
from sae.coder import Coder
from sae.objectives import Moment, rebuilt
from sae.parallel import Alone
from tests.models import ids, random_model

SITE = "blocks.1.hook_resid_post"


def coded(coder: Coder, config: sae.TrainConfig, rows: Tensor) -> Tensor:
    return rebuilt(coder, rows, config, Moment(n_rows=len(rows)))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("loss", ["kl", "ce"])
@pytest.mark.parametrize("kind", ["topk", "batchtopk", "relu", "pursuit"])
def test_its_gradient_is_that_of_autograd_through_the_model(kind: str, loss: str, first: bool) -> None:
    module, tokens = random_model("gpt2").double().eval(), ids(4, 9)
    config = sae.TrainConfig(kind=kind, d_sae=64, k=4)
    coder = Coder(32, 64, 4, kind=kind, dtype=torch.float64)
    through = sae.Through(interp.load(module), tokens, SITE, batch=4, include_first=first)
    number, nats = through.term(lambda rows: coded(coder, config, rows), 0, seed=0, loss=loss, peers=Alone())
    found = torch.autograd.grad(number, list(coder.parameters()), allow_unused=True)

    def reading_on(block: object, given: object, out: Tensor | tuple) -> Tensor | tuple:
        own = out[0] if isinstance(out, tuple) else out
        start = 0 if first else 1
        new = coded(coder, config, own[:, start:].reshape(-1, 32)).view(len(own), -1, 32)
        shown = torch.cat([own[:, :start], new], 1)
        return (shown, *out[1:]) if isinstance(out, tuple) else shown

    plain = module(tokens).logits.log_softmax(-1)
    hook = module.transformer.h[1].register_forward_hook(reading_on)  # pyright: ignore
    logits = module(tokens).logits
    hook.remove()
    if loss == "kl":
        total = kl_div(logits.log_softmax(-1), plain, log_target=True, reduction="sum") / tokens.numel()
    else:
        total = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    expected = torch.autograd.grad(total, list(coder.parameters()), allow_unused=True)
    assert nats == pytest.approx(float(total.detach()), rel=1e-9)
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is not None:
            assert ours is not None
            torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)
    assert any(g is not None and float(g.abs().sum()) > 0 for g in expected)


def _job() -> tuple[sae.model_rows, sae.Through, sae.TrainConfig]:  # pyright: ignore
    model = interp.load("mini")
    tokens = interp.toys.embedded("mini").sample(4096).tokens
    rows = sae.model_rows(model, tokens, SITE, batch=8)
    config = sae.TrainConfig(d_sae=256, k=2, steps=30, batch_size=128, log_every=1, end_to_end=1.0)
    return rows, sae.Through(model, tokens, SITE, batch=8), config


@pytest.mark.slow
def test_it_lowers_what_the_model_loses_and_a_run_resumes_to_the_same_coder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae.learner import Learner

    rows, through, config = _job()
    whole = sae.train(rows, config, tmp_path / "whole", through=through)
    told = [json.loads(line)["end"] for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert sum(told[-5:]) < sum(told[:5])
    advance, config = Learner.advance, replace(config, checkpoint_every=10)

    def failing(self: Learner, *args: Any, **options: Any) -> dict[str, float]:
        if self.step == 17:
            raise RuntimeError("killed")
        return advance(self, *args, **options)

    monkeypatch.setattr(Learner, "advance", failing)
    with pytest.raises(RuntimeError, match="killed"):
        sae.train(rows, config, tmp_path / "cut", through=through)
    monkeypatch.setattr(Learner, "advance", advance)
    again = sae.train(rows, config, tmp_path / "cut", through=through, resume=True)
    for name, value in whole.coder.state_dict().items():
        assert torch.equal(again.coder.state_dict()[name], value), name
    other = replace(through, batch=4)
    with pytest.raises(StoreError, match="other data"):
        sae.train(rows, config, tmp_path / "cut", through=other, resume=True)


def test_a_weight_without_a_model_and_a_model_without_a_weight_are_named() -> None:
    rows, through, config = _job()
    with pytest.raises(InputError, match="through=sae.Through"):
        sae.train(rows, config)
    with pytest.raises(InputError, match="through=sae.Through"):
        sae.train(rows, replace(config, end_to_end=0.0), through=through)
    with pytest.raises(InputError, match="64 texts for the end-to-end loss and 100 a step"):
        replace(through, batch=100)


def test_the_term_is_made_in_the_precision_asked_for_and_the_model_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sae import learner

    through = sae.Through(interp.load(random_model("gpt2").eval()), ids(4, 9), SITE, batch=4)
    config = sae.TrainConfig(d_sae=64, k=4, steps=1, batch_size=32, end_to_end=1.0)
    inside, seen = [], []

    @contextmanager
    def spy(precision: str, device: torch.device) -> Iterator[None]:
        inside.append(precision)
        yield
        inside.pop()

    def watch(owner: Any, name: str) -> None:
        made = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            seen.append((name, *inside))
            return made(*args, **options)

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(learner, "products", spy)
    watch(learner, "rebuilt")
    watch(Tensor, "backward")
    watch(type(through.model), "gradients")
    sae.train(torch.randn(64, 32), config, through=through)
    told = "float32"
    assert seen == [("backward", told), ("rebuilt", told), ("gradients",), ("backward", told)]
