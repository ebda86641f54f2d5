"""Metrics of whole models: profiles, baselines, training, the last token; findings that need no download."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interp
from interp.errors import InputError
from interp.metrics import (
    cka_matrix,
    class_distance_variance,
    curvature,
    effective_rank,
    feature_variance_share,
    last_token_gap,
    layer_profile,
    layer_similarity,
    loss_barrier,
    match_neurons,
    match_weights,
    mean_cosine,
    mlp_units,
    neural_collapse,
    permuted,
    prompt_entropy,
    rankme,
    shuffled_tokens,
    token_homogeneity,
    training_profile,
)
from interp.tokens import Tokens
from tests.models import ids, loaded, quiet


def small_gpt2(*, layers: int = 6, width: int = 64, seed: int = 0, positions: bool = True):
    """A GPT-2 as it is before training."""
    import transformers

    config = transformers.GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=4,
        n_positions=520,
        vocab_size=211,
        bos_token_id=0,
        eos_token_id=1,
    )
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        module = transformers.GPT2LMHeadModel(config).eval()
        if not positions:
            nn.init.zeros_(module.transformer.wpe.weight)
        return interp.load(module)


def text(rows: int = 24, columns: int = 20, seed: int = 0) -> Tokens:
    return Tokens.full(torch.randint(2, 211, (rows, columns), generator=torch.Generator().manual_seed(seed)))


def test_a_profile_holds_what_the_metrics_say_of_the_rows() -> None:
    model, tokens = small_gpt2(layers=2), text()
    profile = layer_profile(model, tokens, batch_size=5, products="float64")
    acts = model.capture(tokens, ["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"])
    rows = {str(s): acts.rows(s) for s in acts}
    for i, (site, x) in enumerate(rows.items()):
        assert profile["effective rank"].ticks[0][i] == site
        expected = {
            "effective rank": effective_rank(x, n_blocks=0),
            "RankMe": rankme(x, n_blocks=0),
            "mean cosine": mean_cosine(x),
            "curvature": curvature(acts[site]),
            "prompt entropy": prompt_entropy(acts[site]),
        }
        for name, result in expected.items():
            assert np.asarray(profile[name].value)[i] == pytest.approx(result.value, rel=1e-4, abs=1e-5), name
    homogeneity = np.asarray(token_homogeneity(acts).value)
    np.testing.assert_allclose(np.asarray(profile["token homogeneity"].value), homogeneity, atol=1e-5)
    assert (np.asarray(profile["effective rank"].stderr) > 0).all()


def test_baselines_stand_where_chance_stands_and_leave_the_model_alone() -> None:
    model, tokens = small_gpt2(layers=2), text(rows=12)
    before = model.fingerprint()
    for baseline in ("random_init", "shuffled_tokens"):
        result = layer_profile(model, tokens, quantities=["mean cosine"], baseline=baseline)["mean cosine"]
        assert np.isfinite(np.asarray(result.chance)).all()
        assert baseline in result.convention
        assert result.plot().data
    assert model.fingerprint() == before
    with pytest.raises(InputError, match="did you mean 'mean cosine'"):
        layer_profile(model, tokens, quantities=["mean cosin"])


def test_a_random_init_of_a_plain_module_has_other_weights_of_the_same_scale() -> None:
    from interp.metrics import random_init

    model = interp.load("group:C59")
    fresh = random_init(model, seed=1)
    assert fresh.fingerprint() == random_init(model, seed=1).fingerprint()
    assert fresh.fingerprint() not in (model.fingerprint(), random_init(model, seed=2).fingerprint())


def test_shuffled_tokens_keep_unigrams_lengths_and_the_beginning() -> None:
    tokens = Tokens.of([[1, 5, 6, 7], [1, 8, 9], [1, 2, 3, 4]])
    mixed = shuffled_tokens(None, tokens, seed=0)
    assert mixed.ids[:, 0].tolist() == [1, 1, 1]
    assert torch.equal(mixed.mask, tokens.mask)
    assert mixed.ids[mixed.mask].sort().values.tolist() == tokens.ids[tokens.mask].sort().values.tolist()
    assert not torch.equal(mixed.ids, tokens.ids)


def test_similarity_of_layers_and_of_two_models_in_one_call() -> None:
    model, other, tokens = small_gpt2(layers=2), small_gpt2(layers=3, seed=1), text(rows=40)
    exact = layer_similarity(model, tokens, method="exact")
    blocks = layer_similarity(model, tokens)
    assert exact.value.shape == (3, 3)
    # the block estimate lies within its own error
    off = np.triu_indices(3, 1)
    assert (np.abs(exact.value - blocks.value)[off] < 4 * np.asarray(blocks.stderr)[off] + 1e-3).all()
    between = layer_similarity(model, tokens, other=other, method="exact")
    assert between.value.shape == (3, 4)
    assert between.ticks[1][-1] == "blocks.2.hook_resid_post"
    rows = [
        m.capture(tokens, "blocks.1.hook_resid_post").rows("blocks.1.hook_resid_post") for m in (model, other)
    ]
    direct = interp.metrics.cka(*rows).value
    assert between.value[2, 2] == pytest.approx(direct, abs=1e-4)
    assert layer_similarity(model, tokens, baseline="random_init").value.shape == (3, 3)


def test_a_training_profile_has_steps_and_sites() -> None:
    runs = {0: lambda: small_gpt2(layers=2), 10: small_gpt2(layers=2, seed=1)}
    out = training_profile(runs, text(rows=6), quantities=["RankMe", "token homogeneity"])
    assert out["RankMe"].axes == ("step", "site")
    assert out["RankMe"].value.shape == (2, 3)
    assert out["RankMe"].ticks[0] == ("0", "10")
    with pytest.raises(InputError, match="no checkpoints"):
        training_profile({}, text())


# -- findings ---------------------------------------------------------------------------------------


def test_tokens_grow_alike_with_depth_before_any_training() -> None:
    model = small_gpt2(layers=8, width=96)
    acts = model.capture(text(rows=16, columns=48), ["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"])
    value = np.asarray(token_homogeneity(acts).value)
    assert (np.diff(value) > 0).all()
    assert value[0] < 0.05
    assert value[-1] > value[0] + 0.04


def test_the_last_token_stops_seeing_the_rest_without_positions() -> None:
    lengths = [4, 16, 64, 256]
    sequences = torch.randint(2, 211, (3, 300), generator=torch.Generator().manual_seed(0))
    blind = last_token_gap(small_gpt2(positions=False), sequences, lengths=lengths)
    seeing = last_token_gap(small_gpt2(), sequences, lengths=lengths)
    gap, kept = np.asarray(blind.value), np.asarray(seeing.value)
    # at least 1 / n: each fourfold length costs a factor of at least two and a half
    assert (gap[:-1] / gap[1:] > 2.5).all()
    assert kept.min() > 0.3 * kept.max()
    assert kept[-1] > 50 * gap[-1]
    assert seeing.provenance["lost"]["bfloat16"] is None
    with pytest.raises(InputError, match="exceeds the context"):
        last_token_gap(loaded("gpt2", "transformers"), ids(1, 24), lengths=[24])


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.data / 16, dtype=torch.float32)
    return x - x.mean(0), torch.tensor(data.target)


def mlp(*widths: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts: list[nn.Module] = []
        for d_in, d_out in zip(widths, widths[1:], strict=False):
            parts += [nn.Linear(d_in, d_out), nn.ReLU()]
        return nn.Sequential(*parts[:-1])


def trained(
    net: nn.Sequential,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    lr: float = 3e-3,
    decay: float = 1e-4,
    seed: int = 0,
):
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,), generator=generator)
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()
    return net


def hidden(net: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    """Each hidden layer behind its ReLU."""
    out, number = {}, 0
    with torch.no_grad():
        for part in net:
            x = part(x)
            if isinstance(part, nn.ReLU):
                out[str(number)] = x
                number += 1
    return out


def test_classes_collapse_over_training_on_digits() -> None:
    x, y = digits()
    net, curve = mlp(64, 128, 128, 10, seed=0), []
    for steps in (30, 120, 700):
        trained(net, x[:1200], y[:1200], steps=steps, decay=5e-3)
        rows = hidden(net, x[:1200])["1"]
        collapse = np.asarray(neural_collapse(rows, y[:1200]).value)
        curve.append([collapse[0], class_distance_variance(rows, y[:1200]).value, collapse[2]])
    falls = np.diff(np.array(curve, dtype=float), axis=0)
    assert (falls[:, :2] < 0).all()  # NC1 and CDNV
    assert falls[:, 2].sum() < 0  # NC2, over the whole
    held_out = class_distance_variance(hidden(net, x[1200:])["1"], y[1200:]).value
    assert held_out < class_distance_variance(x[1200:], y[1200:]).value


def conv(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
        for d_in, d_out, stride in ((1, 16, 1), (16, 32, 2), (32, 64, 2)):
            parts += [nn.Conv2d(d_in, d_out, 3, stride=stride, padding=1), nn.ReLU()]
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))


def test_layers_are_identified_between_two_seeds_by_cka() -> None:
    x, y = digits()
    nets = [trained(conv(s), x[:1200], y[:1200], steps=100, seed=s) for s in range(2)]
    acts = [{name: h.flatten(1) for name, h in hidden(net, x[1200:]).items()} for net in nets]
    matrix = np.asarray(cka_matrix(acts[0], acts[1], n_blocks=0).value)
    assert matrix.argmax(1).tolist() == matrix.argmax(0).tolist() == [0, 1, 2, 3]
    # alike, and not neuron by neuron
    assert match_neurons(acts[0]["3"], acts[1]["3"]).value < 0.8 < matrix[3, 3]


def test_the_barrier_between_two_wide_networks_falls_after_re_basin() -> None:
    x, y = digits()
    # one initialisation in two orders of its units and other batches: what matching can undo, it must
    first = mlp(64, 512, 10, seed=0)
    weights = {k: v.detach().clone() for k, v in first.named_parameters()}
    units = mlp_units(first)
    second = mlp(64, 512, 10, seed=5)
    nets = [
        trained(net, x[:1200], y[:1200], steps=250, lr=1e-3, seed=s) for s, net in enumerate((first, second))
    ]
    a, b = ({k: v.detach() for k, v in net.named_parameters()} for net in nets)

    def loss(w: dict[str, Tensor]) -> float:
        return float(nn.functional.cross_entropy(torch.func.functional_call(first, w, (x[1200:],)), y[1200:]))

    before = loss_barrier(loss, a, b).provenance["barrier"]
    after = loss_barrier(loss, a, permuted(b, units, match_weights(a, b, units))).provenance["barrier"]
    assert set(weights) == set(a)
    assert before > 0.1
    assert after < 0.02  # nats: nearly nothing of it is left


def test_a_simple_feature_takes_more_variance_than_a_hard_one_learned_equally_well() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, (4096, 16), generator=generator)
    easy, hard = bits[:, 0], bits[:, 1] ^ bits[:, 2] ^ bits[:, 3]
    x = bits.float() * 2 - 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body, heads = (
            nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()),
            nn.Linear(64, 2),
        )
    optimiser = torch.optim.AdamW([*body.parameters(), *heads.parameters()], lr=3e-3)
    goal = torch.stack([easy, hard], 1).float()
    for _ in range(350):
        rows = torch.randint(4096, (256,), generator=generator)
        optimiser.zero_grad(set_to_none=True)
        nn.functional.binary_cross_entropy_with_logits(heads(body(x[rows])), goal[rows]).backward()
        optimiser.step()
    with torch.no_grad():
        h = body(x)
        accuracy = ((heads(h) > 0) == (goal > 0.5)).float().mean(0)
    assert (accuracy > 0.99).all()
    shares = [feature_variance_share(h, f, n_blocks=0) for f in (easy, hard)]
    assert shares[0].value > 1.5 * shares[1].value > 10 * shares[1].chance


def test_rank_and_exponent_of_a_network_trained_live_move_in_phases() -> None:
    from interp.toys import Shape, Transformer

    module = Transformer(
        Shape(d_vocab=40, n_ctx=8, n_layers=1, d_model=24, n_heads=2, d_mlp=48),
        generator=torch.Generator().manual_seed(0),
    )
    generator = torch.Generator().manual_seed(1)
    zipf = 1 / torch.arange(1, 41).float()
    follow = torch.stack([torch.multinomial(zipf, 40, generator=generator) for _ in range(40)])
    optimiser = torch.optim.AdamW(module.parameters(), lr=5e-3)

    def sample(rows: int) -> Tensor:
        out = [torch.multinomial(zipf, rows, replacement=True, generator=generator)]
        for _ in range(7):
            out.append(follow[out[-1], torch.randint(3, (rows,), generator=generator)])
        return torch.stack(out, 1)

    profiles, probe = {}, sample(60)
    for step in (0, 20, 200):
        for _ in range(step):
            batch = sample(64)
            optimiser.zero_grad(set_to_none=True)
            logits = module(batch[:, :-1]).flatten(0, 1)
            nn.functional.cross_entropy(logits, batch[:, 1:].flatten()).backward()
            optimiser.step()
        import copy

        profiles[step] = interp.load(copy.deepcopy(module))
    out = training_profile(
        profiles, probe, "blocks.0.hook_resid_post", quantities=["RankMe", "effective rank"]
    )
    ranks = np.asarray(out["effective rank"].value)[:, 0]
    assert ranks[1] < ranks[0]  # collapse at first
    assert not math.isclose(ranks[2], ranks[1], rel_tol=0.02)  # and it does not stay there
