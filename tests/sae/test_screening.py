"""The encoder screened in bfloat16 keeps the codes of the float32 encoder, whatever its weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sae
from sae.choosing import chosen
from sae.coder import Coder
from sae.objectives import Moment, objective
from sae.screening import Screen, native, screens
from sae.selection import Support
from tests.sae.test_training import planted

D, F, K, N = 48, 512, 6, 200
KINDS = ["topk", "abstopk", "batchtopk", "matryoshka"]


def rows(seed: int = 0) -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed))


def coder(kind: str, *, width: int = F, spread: float = 1.0, bias: float = 0.1) -> Coder:
    """Encoder columns whose lengths differ by up to a factor 1 + ``spread``."""
    made, generator = Coder(D, width, K, kind=kind), torch.Generator().manual_seed(3)
    with torch.no_grad():
        made.W_enc.mul_(1 + spread * torch.rand(width, generator=generator))
        made.b_enc.copy_(bias * torch.randn(width, generator=generator))
    return made


def places(made: Coder, x: Tensor, screen: str, guess: float = 0.0) -> tuple[Tensor, Tensor, float]:
    support, values, edge = chosen(made, x, screen=screen, guess=guess)
    order = support.flat.argsort()
    return support.flat[order], values[order], edge


@pytest.mark.parametrize("width", [F, F - 7], ids=["blocks", "no-blocks"])
@pytest.mark.parametrize(("spread", "bias"), [(0.0, 0.0), (1.0, 0.1), (20.0, 3.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_screened_codes_are_those_of_the_plain_product(
    kind: str, spread: float, bias: float, width: int
) -> None:
    made, x = coder(kind, width=width, spread=spread, bias=bias), rows()
    plain, values, edge = places(made, x, "never")
    for guess in (0.0, edge, 0.9 * edge, 1.2 * edge):  # the last is too high and must be noticed
        found, again, _ = places(made, x, "always", guess)
        assert torch.equal(found, plain)
        # float32 sums of 48 products in another order
        torch.testing.assert_close(again, values, atol=1e-5 * float(values.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_bound_holds_for_every_entry(scale: float) -> None:
    made, x = coder("topk"), scale * rows()
    with torch.no_grad():
        made.b_enc.mul_(scale)
        screen = Screen(made, x)
        rough = screen.product(slice(0, N), torch.empty(N, F, dtype=torch.bfloat16)).double()
        exact = x.double() @ made.W_enc.double() + made.b_enc.double()
    # the stored result is rounded to 8 bits of mantissa on top of the error of the product
    room = screen.error.double()[:, None] + 2.0**-9 * 1.01 * rough.abs()
    assert bool(((rough - exact).abs() <= room).all())
    assert float(((rough - exact).abs() / room).max()) > 0.05  # and is no idle bound


def test_the_bound_is_what_keeps_winners_that_rounding_would_lose() -> None:
    """Latents that differ by less than bfloat16 can tell: the rough order is wrong, the codes are right."""
    made, x = coder("topk", spread=0.0, bias=0.0), rows()
    with torch.no_grad():
        made.W_enc.copy_(made.W_enc[:, :8].repeat_interleave(F // 8, 1) * (1 + 1e-4 * torch.rand(F)))
        rough = Screen(made, x).product(slice(0, N), torch.empty(N, F, dtype=torch.bfloat16))
    wrong = rough.float().topk(K).indices.sort(1).values
    plain, _, _ = places(made, x, "never")
    right = (plain % F).view(N, K)
    assert not torch.equal(wrong, right)
    assert torch.equal(places(made, x, "always")[0], plain)


def test_where_candidates_crowd_the_plain_product_decides() -> None:
    made, x = coder("topk"), rows()
    with torch.no_grad():
        made.W_enc.mul_(0.0)
        made.b_enc.copy_(1 + torch.arange(F) * 1e-6)  # every latent within the bound of every other
        assert Screen(made, x).of_rows(slice(0, N), torch.empty(N, F, dtype=torch.bfloat16)) is None
    support, _, _ = chosen(made, x, screen="always")
    assert torch.equal(support.col.view(N, K).sort(1).values, torch.arange(F - K, F).expand(N, K))


@pytest.mark.parametrize("kind", KINDS)
def test_a_screened_step_has_the_loss_and_gradients_of_a_plain_one(kind: str) -> None:
    made, x, found = coder(kind), rows(), {}
    for screen in ("never", "always"):
        config = sae.TrainConfig(kind=kind, d_sae=F, k=K, screen=screen)  # pyright: ignore[reportArgumentType]
        terms = objective(made, x, x, config, Moment(n_rows=N, guess=2.0))
        found[screen] = [terms.loss, *torch.autograd.grad(terms.loss, [made.W_enc, made.W_dec, made.b_enc])]
    for plain, screened in zip(found["never"], found["always"], strict=True):
        torch.testing.assert_close(screened, plain, atol=1e-6, rtol=1e-4)  # float32 sums in another order


def test_auto_asks_the_processor_and_the_sizes_and_other_kinds_are_never_screened() -> None:
    wide, narrow = torch.zeros(2, 512), torch.zeros(2, 48)
    large = Coder(512, 4096, 32)
    assert screens(large, wide, "auto") == native(wide.device)
    assert not screens(large, wide.double(), "always")
    assert not screens(large, wide, "never")
    assert not screens(coder("topk"), narrow, "auto")
    assert screens(coder("topk"), narrow, "always")
    assert not screens(Coder(48, 512, 6, kind="groupmax"), narrow, "always")


def test_a_screened_run_learns_what_a_plain_one_learns() -> None:
    x, _ = planted(4000)
    made = {
        screen: sae.train(x, sae.TrainConfig(d_sae=64, k=4, steps=60, batch_size=256, screen=screen))  # pyright: ignore[reportArgumentType]
        for screen in ("never", "always")
    }
    plain, screened = (made[name].history["fvu"][-1] for name in ("never", "always"))
    assert screened == pytest.approx(plain, rel=1e-2)  # the same up to what rounding grows into in 60 steps


def test_a_row_without_candidates_does_not_exist() -> None:
    """Rows of zeros tie everywhere; each still keeps k codes."""
    made = coder("topk", bias=0.0)
    support, values, _ = chosen(made, torch.zeros(3, D), screen="always")
    assert isinstance(support, Support)
    assert len(support.col) == 3 * K
    assert float(values.abs().max()) == 0.0
