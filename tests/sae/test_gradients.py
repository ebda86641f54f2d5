"""Gradients of every kind against autograd of the obvious dense form, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sae.choosing import chosen
from sae.coder import Coder
from sae.config import TrainConfig
from sae.estimators import jump, step
from sae.objectives import Moment, objective
from sae.products import read, write
from sae.rules import RULES
from sae.selection import Support, above, largest_of_rows

D, F, K, N = 6, 32, 4, 40


def rows(n: int = N, d: int = D, seed: int = 0) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def coder(kind: str, **make: object) -> Coder:
    """A coder none of whose tensors is special."""
    made = Coder(D, F, K, kind=kind, dtype=torch.float64, bandwidth=0.5, **make)  # pyright: ignore
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.add_(0.3 * noise)
            if name == "threshold":
                parameter.abs_().add_(0.05)
    return made


def gradients(loss: Tensor, made: Coder) -> dict[str, Tensor]:
    names, parameters = zip(*made.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name in b:
        torch.testing.assert_close(
            a[name], b[name], atol=1e-10, rtol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def dense_pre(made: Coder, x: Tensor) -> Tensor:
    return ((x - made.b_dec) if made.centred else x) @ made.W_enc + made.b_enc


def kept_rows(pre: Tensor, k: int) -> Tensor:
    """By sorting, one row at a time."""
    mask = torch.zeros_like(pre)
    for row in range(len(pre)):
        mask[row, pre[row].argsort(descending=True)[:k]] = 1
    return mask


def dense_codes(made: Coder, x: Tensor) -> Tensor:
    pre = dense_pre(made, x)
    match made.kind:
        case "topk":
            return pre.relu() * kept_rows(pre.detach(), K)
        case "abstopk":
            return pre * kept_rows(pre.detach().abs(), K)
        case "groupmax":
            groups = pre.detach().view(N, K, F // K)
            return pre.relu() * (groups == groups.amax(2, keepdim=True)).view(N, F)
        case _:
            edge = pre.detach().flatten().sort().values[-K * N]
            return torch.where((pre >= edge) & (pre > 0), pre, 0.0)


def base(made: Coder, x: Tensor) -> Tensor:
    return made.b_dec + (x @ made.W_skip if made.wiring == "skip" else 0.0)


FEW = ["topk", "abstopk", "groupmax", "batchtopk"]
WIRED: list[dict] = [
    {"wiring": "sae"},
    {"wiring": "transcoder", "d_out": 8},
    {"wiring": "skip", "d_out": 8},
    {"wiring": "crosscoder", "n_sites": 2},
    {"wiring": "cross-layer", "n_sites": 2},
]


@pytest.mark.parametrize("kind", FEW)
@pytest.mark.parametrize("make", WIRED, ids=lambda m: m["wiring"])
def test_the_sparse_step_has_the_loss_and_gradients_of_the_dense_one(kind: str, make: dict) -> None:
    made, x = coder(kind, **make), rows()
    y = x if made.d_out == D and made.wiring != "cross-layer" else rows(d=made.d_out, seed=1)
    config = TrainConfig(kind=kind, d_sae=F, k=K, flops=0.7)
    terms = objective(made, x, y, config, Moment(n_rows=N))
    codes = dense_codes(made, x)
    error = (y - base(made, x) - codes @ made.W_dec).square().sum(1)
    total = (error.sum() + 0.7 * N * codes.abs().mean(0).square().sum()) / (N * made.d_out)
    torch.testing.assert_close(terms.loss, total, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(terms.error, error.detach(), atol=1e-12, rtol=1e-12)
    assert torch.equal(terms.fired, (codes != 0).sum(0))
    same(gradients(terms.loss, made), gradients(total, made))


def test_auxk_reaches_the_encoder_of_the_dead_and_of_no_one_else() -> None:
    made, x = coder("topk"), rows()
    dead = torch.tensor([1, 5, 9, 20, 31])
    config = TrainConfig(kind="topk", d_sae=F, k=K, auxk=0.5, k_aux=3)
    with_it = objective(made, x, x, config, Moment(n_rows=N, dead=dead))
    without = objective(made, x, x, config, Moment(n_rows=N))
    codes = dense_codes(made, x)
    rest = (x - made.b_dec - codes @ made.W_dec).detach()
    pre = ((x - made.b_dec).detach() @ made.W_enc + made.b_enc)[:, dead]
    aux = (rest - (pre.relu() * kept_rows(pre.detach(), 3)) @ made.W_dec[dead]).square().sum()
    expected = 0.5 * aux / (N * D)
    torch.testing.assert_close(with_it.loss - without.loss, expected, atol=1e-12, rtol=1e-9)
    plain = gradients(without.loss, made)
    difference = {name: value - plain[name] for name, value in gradients(with_it.loss, made).items()}
    same(difference, gradients(expected, made))
    assert float(difference["W_enc"][:, dead].abs().sum()) > 1e-3
    alive = [f for f in range(F) if f not in dead.tolist()]
    assert float(difference["W_enc"][:, alive].abs().max()) == 0.0


def test_matryoshka_is_the_mean_loss_of_its_prefixes() -> None:
    made, x = coder("matryoshka"), rows()
    config = TrainConfig(kind="matryoshka", d_sae=F, k=K, prefixes=(8, 20, 32))
    terms = objective(made, x, x, config, Moment(n_rows=N))
    codes = dense_codes(made, x)
    losses = [(x - made.b_dec - codes[:, :m] @ made.W_dec[:m]).square().sum() for m in (8, 20, 32)]
    total = torch.stack(losses).mean() / (N * D)
    torch.testing.assert_close(terms.loss, total, atol=1e-12, rtol=1e-12)
    same(gradients(terms.loss, made), gradients(total, made))


class Kernel(torch.autograd.Function):
    """H(u) with the rectangle of width eps as its derivative: both formulas of JumpReLU follow from it."""

    @staticmethod
    def forward(ctx: object, u: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(u)  # pyright: ignore[reportAttributeAccessIssue]
        ctx.eps = eps  # pyright: ignore[reportAttributeAccessIssue]
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: object, *g: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        eps = ctx.eps  # pyright: ignore[reportAttributeAccessIssue]
        return g[0] * ((u / eps).abs() < 0.5) / eps, None


def test_jumprelu_has_the_gradients_of_its_formulas_entry_by_entry() -> None:
    eps, g = 0.5, rows(d=3, seed=3)
    pre, theta = (
        rows(d=3).requires_grad_(),
        torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64, requires_grad=True),
    )
    kernel = ((pre - theta).abs() < eps / 2).double().detach()
    d_pre, d_theta = torch.autograd.grad(jump(pre, theta, eps), (pre, theta), g)
    torch.testing.assert_close(d_pre, g * (pre > theta), atol=0, rtol=0)
    torch.testing.assert_close(d_theta, (g * -(theta / eps) * kernel).sum(0).detach(), atol=1e-12, rtol=1e-12)
    d_theta = torch.autograd.grad(step(pre, theta, eps), theta, g)[0]
    torch.testing.assert_close(d_theta, (g * -(1 / eps) * kernel).sum(0), atol=1e-12, rtol=1e-12)


PENALTIES: list[tuple[str, dict, Callable[[Coder, Tensor, Tensor], Tensor]]] = [
    ("relu", {"norm": "decoder"}, lambda c, pre, z: (z * c.W_dec.norm(dim=1)).sum()),
    ("relu", {"norm": "plain"}, lambda c, pre, z: z.sum()),
    ("relu", {"penalty": "tanh"}, lambda c, pre, z: torch.tanh(4.0 * z * c.W_dec.norm(dim=1)).sum()),
    ("jumprelu", {}, lambda c, pre, z: Kernel.apply(pre.detach() - c.threshold, 0.5).sum()),
    ("jumprelu", {"penalty": "tanh"}, lambda c, pre, z: torch.tanh(4.0 * z * c.W_dec.norm(dim=1)).sum()),
    ("gated", {}, lambda c, pre, z: (pre.relu() * c.W_dec.norm(dim=1)).sum()),
]


@pytest.mark.parametrize(("kind", "options", "penalty"), PENALTIES)
def test_penalised_kinds_have_the_gradients_of_the_obvious_form(
    kind: str, options: dict, penalty: Callable[[Coder, Tensor, Tensor], Tensor]
) -> None:
    made, x = coder(kind), rows()
    config = TrainConfig(kind=kind, d_sae=F, k=K, sparsity=0.3, sparsity_warmup=0.5, **options)
    terms = objective(made, x, x, config, Moment(n_rows=N, progress=0.25))  # half of the warm-up
    pre = dense_pre(made, x)
    extra: Tensor | float = 0.0
    if kind == "relu":
        z = pre.clamp(min=0)
    elif kind == "jumprelu":
        open_ = (pre > made.threshold).double()
        # the value passes as pre H, and the threshold through theta H'
        z = pre * open_ + made.threshold.detach() * (Kernel.apply(pre.detach() - made.threshold, 0.5) - open_)
    else:
        z = (pre > 0).double() * ((x - made.b_dec) @ made.W_enc * made.r_mag.exp() + made.b_mag).clamp(min=0)
        extra = (x - made.b_dec.detach() - pre.clamp(min=0) @ made.W_dec.detach()).square().sum()
    error = (x - made.b_dec - z @ made.W_dec).square().sum()
    total = (error + 0.15 * penalty(made, pre, z) + extra) / (N * D)
    torch.testing.assert_close(terms.loss, total, atol=1e-12, rtol=1e-12)
    same(gradients(terms.loss, made), gradients(total, made))


def test_p_annealing_bends_the_penalty_and_keeps_its_size() -> None:
    made, x = coder("panneal"), rows()
    config = TrainConfig(kind="panneal", d_sae=F, k=K, sparsity=0.3, p_end=0.2)
    terms = objective(made, x, x, config, Moment(n_rows=N, progress=0.5))
    z = dense_pre(made, x).clamp(min=0)
    weighed = z * made.W_dec.norm(dim=1)
    bent = (weighed + 1e-8) ** 0.6
    penalty = bent.sum() * (weighed.sum() / bent.sum()).detach()
    total = ((x - made.b_dec - z @ made.W_dec).square().sum() + 0.3 * penalty) / (N * D)
    torch.testing.assert_close(terms.loss, total, atol=1e-12, rtol=1e-12)
    same(gradients(terms.loss, made), gradients(total, made))


@pytest.mark.parametrize("kind", ["pursuit", "codebook"])
def test_codes_found_with_the_dictionary_are_those_of_a_loop_over_rows(kind: str) -> None:
    made, x = coder(kind), rows()
    if kind == "pursuit":
        made.normalise_()
    terms = objective(made, x, x, TrainConfig(kind=kind, d_sae=F, k=K), Moment(n_rows=N))
    total = x.new_zeros(())
    for row in x:
        rest = row - made.b_dec
        for _ in range(K):
            if kind == "codebook":
                best = int((rest - made.W_dec).square().sum(1).argmin())
                rest = rest - made.W_dec[best]
            else:
                best = int((made.W_dec @ rest).argmax())
                rest = rest - (made.W_dec[best] @ rest).clamp(min=0) * made.W_dec[best]
        total = total + rest.square().sum()
    torch.testing.assert_close(terms.loss, total / (N * D), atol=1e-12, rtol=1e-12)
    same(gradients(terms.loss, made), gradients(total / (N * D), made))
    torch.testing.assert_close((made(x) - x).square().sum(), total, atol=1e-10, rtol=1e-10)


def test_read_and_write_pass_gradcheck_in_everything_they_read() -> None:
    support = Support(
        torch.tensor([0, 2, 2, 5]), torch.tensor([3, 0, 1, 3, 4]), 6
    )  # a row without a code, too
    x, weight = rows(3, 4).requires_grad_(), rows(4, 6, 1).requires_grad_()
    bias, shift = rows(1, 6, 2)[0].requires_grad_(), rows(1, 4, 3)[0].requires_grad_()
    dictionary = rows(6, 5, 4).requires_grad_()

    def through(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, dictionary: Tensor) -> Tensor:
        pre = (x - shift) @ weight + bias
        at = pre.detach()[support.row, support.col]
        return write(read((x - shift).detach(), shift, weight, bias, at, support), dictionary, support)

    def dense(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, dictionary: Tensor) -> Tensor:
        mask = torch.zeros(3, 6, dtype=torch.float64)
        mask[support.row, support.col] = 1
        return (((x - shift) @ weight + bias) * mask) @ dictionary

    given = (x.detach(), shift, weight, bias, dictionary)
    upstream = rows(3, 5, 9)
    for a, b in zip(
        torch.autograd.grad(through(*given), given[1:], upstream),
        torch.autograd.grad(dense(*given), given[1:], upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    g_x = torch.autograd.grad(read(x, None, weight, bias, x.detach()[0, :1].repeat(5), support).sum(), x)[0]
    torch.testing.assert_close(g_x[2], (weight[:, 1] + weight[:, 3] + weight[:, 4]).detach())


@pytest.mark.parametrize("shape", [(5, 33), (7, 2048), (64, 1024), (3, 520), (2, 640)])
def test_selections_are_those_of_sorting(shape: tuple[int, int]) -> None:
    pre = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for k in (1, 4, 33):
        found = pre.gather(1, largest_of_rows(pre, k)).sort(1).values
        assert torch.equal(found, pre.sort(1).values[:, -k:])
    for cut in (-10.0, 0.0, 2.0, 10.0):
        assert torch.equal(above(pre, cut), (pre.flatten() > cut).nonzero()[:, 0])


@pytest.mark.parametrize("width", [33, 640, 2048])
def test_of_equal_entries_the_first_are_kept_and_rows_of_nan_keep_k(width: int) -> None:
    pre = torch.randint(0, 4, (50, width), generator=torch.Generator().manual_seed(1)).float()
    pre[0], pre[1] = 0.0, float("-inf")
    found = largest_of_rows(pre, 12).sort(1).values
    # a stable sort keeps equal entries in their order
    assert torch.equal(found, pre.sort(dim=1, descending=True, stable=True).indices[:, :12].sort(1).values)
    pre[3] = float("nan")
    assert all(len(row.unique()) == 12 for row in largest_of_rows(pre, 12))


@pytest.mark.parametrize("guess", [0.0, 0.5, 1.0, 50.0])
def test_a_wrong_guess_of_the_edge_costs_time_and_changes_nothing(guess: float) -> None:
    made, x = coder("batchtopk"), rows()
    support, values, edge = chosen(made, made.shifted(x).detach(), guess=guess)
    expected = dense_codes(made, x).detach()
    torch.testing.assert_close(support.dense(values), expected, atol=1e-12, rtol=1e-12)
    assert edge == pytest.approx(float(expected[expected > 0].min()), rel=1e-12)


def test_every_kind_is_covered_here() -> None:
    covered = {*FEW, "matryoshka", "panneal", "pursuit", "codebook", *(kind for kind, _, _ in PENALTIES)}
    assert covered == set(RULES)
