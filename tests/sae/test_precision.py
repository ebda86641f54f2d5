"""Products in bfloat16 and TF32: close to float32, weights float32 throughout, nothing of the process left changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sae
from interp.errors import InputError
from sae import stacking
from sae.coder import Coder
from sae.learner import Learner
from sae.objectives import Moment, objective
from sae.precision import ask, products
from sae.products import read, write
from sae.selection import Support
from tests.sae.test_training import planted

CONFIG = sae.TrainConfig(d_sae=64, k=4, steps=60, batch_size=64, precision="bf16", dead_after=1000)
KINDS = ["topk", "batchtopk", "matryoshka", "relu", "gated"]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_bfloat16_are_those_of_float32_up_to_its_rounding(kind: str) -> None:
    made, x = Coder(24, 64, 4, kind=kind), planted(256)[0] - 5
    found = {}
    for precision in ("float32", "bf16"):
        config = replace(CONFIG, kind=kind, precision=precision)  # pyright: ignore[reportArgumentType]
        dead = torch.arange(0, 64, 3) if config.keeps_few else None
        terms = objective(made, x, x, config, Moment(n_rows=len(x), dead=dead))
        found[precision] = torch.autograd.grad(terms.loss, [made.W_enc, made.W_dec, made.b_dec])
    for low, plain in zip(found["bf16"], found["float32"], strict=True):
        assert low.dtype == torch.float32
        off = float((low - plain).norm() / plain.norm())
        # operands are off by 2^-9; a few codes at the edge change places
        assert 1e-5 < off < 0.06


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "relu"])
def test_a_run_in_bfloat16_learns_what_float32_learns(kind: str) -> None:
    x, _ = planted(2000)
    config = replace(CONFIG, kind=kind)
    low, plain = sae.train(x, config), sae.train(x, replace(config, precision="float32"))
    assert low.history["fvu"][-1] == pytest.approx(plain.history["fvu"][-1], rel=0.05)
    assert not torch.equal(low.coder.W_dec, plain.coder.W_dec)
    assert {v.dtype for v in low.coder.state_dict().values()} == {torch.float32}


def test_a_run_in_bfloat16_resumes_exactly_from_float32_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = planted(500)
    config = replace(CONFIG, checkpoint_every=30)
    whole = sae.train(x, config, tmp_path / "whole")
    advance = Learner.advance

    def until(self: Learner, *args: Any, **options: Any) -> dict[str, float]:
        if self.step == 35:
            assert {v.dtype for v in self.optimiser.tensors().values()} == {torch.float32}
            raise RuntimeError("killed")
        return advance(self, *args, **options)

    monkeypatch.setattr(Learner, "advance", until)
    with pytest.raises(RuntimeError, match="killed"):
        sae.train(x, config, tmp_path / "cut")
    monkeypatch.setattr(Learner, "advance", advance)
    cut = sae.train(x, config, tmp_path / "cut", resume=True)
    for name, value in whole.coder.state_dict().items():
        assert torch.equal(cut.coder.state_dict()[name], value), name
    np.testing.assert_array_equal(cut.history["loss"], whole.history["loss"])


def test_sums_of_bfloat16_numbers_are_float32() -> None:
    """The products of rounded numbers, added in float64, are what read and write give."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(5, 300, generator=generator) for _ in range(2))
    support = Support(torch.tensor([0, 2, 2, 3, 4, 6]), torch.tensor([0, 4, 1, 1, 2, 3]), 5)
    values = torch.randn(6, generator=generator, requires_grad=True)
    master = weight.clone().requires_grad_()
    low = weight.bfloat16()
    out = write(values, master, support, low)
    upstream = torch.randn(out.shape, generator=generator)
    g_values, g_master = torch.autograd.grad(out, (values, master), upstream)
    dense = support.dense(values.detach()).double()
    torch.testing.assert_close(out.detach(), (dense @ low.double()).float(), rtol=1e-5, atol=1e-5)
    rounded = upstream.bfloat16().double()
    torch.testing.assert_close(
        g_values, (rounded @ low.double().T)[support.row, support.col].float(), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(g_master, (dense.T @ rounded).float(), rtol=1e-5, atol=1e-5)
    encoder = torch.zeros(300, 5, requires_grad=True)
    pre = read(x.bfloat16(), None, encoder, torch.zeros(5), values.detach(), support)
    (g_encoder,) = torch.autograd.grad(pre, encoder, values.detach())
    torch.testing.assert_close(g_encoder, (dense.T @ x.bfloat16().double()).T.float(), rtol=1e-5, atol=1e-5)


def test_what_a_device_has_not_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"precision='tf32' needs an NVIDIA GPU.*runs on cpu"):
        sae.train(planted(500)[0], replace(CONFIG, precision="tf32"))
    with pytest.raises(InputError, match=r"precision='bf16' needs .*mps does not"):
        ask("bf16", torch.device("mps"))


@pytest.mark.parametrize(("precision", "inside"), [("tf32", "tf32"), ("float32", "ieee"), ("bf16", "ieee")])
def test_the_switch_of_the_process_is_set_back_after_an_error_too(precision: str, inside: str) -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), products(precision, torch.device("cuda")):
        assert matmul.fp32_precision == inside
        raise ZeroDivisionError
    assert matmul.fp32_precision == before
    with products("tf32", torch.device("cpu")):
        assert matmul.fp32_precision == before


def test_what_the_switch_inherited_it_inherits_afterwards() -> None:
    """A setting of all products is followed again; one of its own is kept, though all are set to something else."""
    matmul = torch.backends.cuda.matmul
    every: Any = torch.backends
    before = matmul.fp32_precision, every.fp32_precision
    try:
        matmul.fp32_precision, every.fp32_precision = "none", "ieee"
        with products("tf32", torch.device("cuda")):
            pass
        every.fp32_precision = "tf32"
        assert matmul.fp32_precision == "tf32"
        matmul.fp32_precision = "ieee"
        with products("tf32", torch.device("cuda")):
            pass
        assert matmul.fp32_precision == "ieee"
    finally:
        matmul.fp32_precision, every.fp32_precision = before


def test_steps_taken_together_are_made_in_the_precision_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward both: a process that has TF32 switched on is not to round them."""
    inside, seen = [], []

    @contextmanager
    def spy(precision: str, device: torch.device) -> Iterator[None]:
        inside.append(precision)
        yield
        inside.pop()

    def watched(name: str, made: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            seen.append((name, *inside))
            return made(*args, **options)

        return call

    monkeypatch.setattr(stacking, "products", spy)
    monkeypatch.setattr(stacking, "objective_abreast", watched("loss", stacking.objective_abreast))
    monkeypatch.setattr(torch.autograd, "grad", watched("gradient", torch.autograd.grad))
    config = replace(CONFIG, precision="float32", steps=2)
    sae.train(planted(500)[0], [config, replace(config, seed=1)])
    assert seen == [("loss", "float32"), ("gradient", "float32")] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "pursuit"}, "'pursuit' is trained in float32"),
        ({"kind": "codebook"}, "'codebook' is trained in float32"),
        ({"screen": "always"}, "screen = 'always' finds places of float32 codes"),
    ],
)
def test_bfloat16_where_it_would_do_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change)
    assert replace(CONFIG, **change, precision="tf32").precision == "tf32"
