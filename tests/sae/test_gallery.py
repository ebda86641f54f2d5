"""What the feature page holds: examples, histograms and relations against brute force, and blocks that read back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
import sae
from interp.errors import InputError, ModelError
from interp.pages.packing import packed, smallest, unpacked
from sae.codes import Codes
from sae.gallery import gathering, page
from sae.gallery.effects import logit_directions, logit_effects
from sae.gallery.examples import Plan, choose
from sae.gallery.relations import CoordinateSums, correlated_latents, decoder_neighbours, layout
from tests.models import loaded, random_model

SITE = "blocks.1.hook_resid_post"
PLAN = Plan(top=3, intervals=4, each=2, before=2, after=1)


@pytest.fixture(scope="module")
def model() -> interp.Model:
    return loaded("gpt2", "transformers")


@pytest.fixture(scope="module")
def tokens(model: interp.Model) -> interp.Tokens:
    rng = np.random.default_rng(0)
    return model.tokens([rng.integers(2, 50, rng.integers(3, 12)).tolist() for _ in range(40)])


@pytest.fixture(scope="module")
def coder(model: interp.Model) -> sae.Coder:
    return sae.Coder(model.d_model or 0, 200, 5, seed=3)


@pytest.fixture(scope="module")
def codes(model: interp.Model, tokens: interp.Tokens, coder: sae.Coder) -> Codes:
    return sae.encode(coder, model, tokens, SITE)


def test_examples_are_the_strongest_texts_and_some_of_every_interval(codes: Codes) -> None:
    chosen = choose(codes, PLAN)
    text = codes.where[:, 0]
    for latent in range(codes.d_sae):
        rows, values = codes.of(latent)
        peaks = {int(t): values[text[rows] == t].max() for t in np.unique(text[rows])}
        mine = list(chosen.of(latent))
        top = [i for i in mine if chosen.group[i] == 0]
        assert [codes.where[chosen.row[i], 0] for i in top] == sorted(peaks, key=lambda t: -peaks[t])[:3]
        shown = [int(text[chosen.row[i]]) for i in mine]
        assert len(shown) == len(set(shown))  # no text twice
        rest = sorted(peaks.values())[::-1][3:]
        strongest = max(peaks.values(), default=1)
        for group in range(4):
            inside = [v for v in rest if group <= (1 - v / strongest) * 4 < group + 1]
            drawn = [i for i in mine if chosen.group[i] == 1 + group]
            assert len(drawn) == min(2, len(inside))


def test_a_window_holds_its_latents_codes_and_stays_in_its_text(codes: Codes) -> None:
    chosen, dense = choose(codes, PLAN), codes.dense(range(codes.d_sae))
    for i, latent in enumerate(chosen.latent):
        begin, length = chosen.row[i] - chosen.left[i], chosen.length[i]
        window = np.zeros(length, dtype=np.float32)
        part = slice(chosen.starts[i], chosen.starts[i + 1])
        window[chosen.offset[part]] = chosen.value[part]
        np.testing.assert_array_equal(window, dense[begin : begin + length, latent])
        assert len(set(codes.where[begin : begin + length, 0])) == 1
        assert length <= 4
        assert abs(window[chosen.left[i]]) == np.abs(window).max()


def test_shares_of_intervals_are_counted_over_all_firings(codes: Codes) -> None:
    chosen = choose(codes, PLAN)
    latent = int(codes.counts.argmax())
    values = codes.of(latent)[1]
    edges = values.max() * np.linspace(0, 1, 5)
    want = [((values > low) & (values <= high)).mean() for low, high in zip(edges, edges[1:], strict=False)]
    np.testing.assert_allclose(chosen.share[latent], want[::-1], atol=1e-6)


def test_correlations_are_pearsons_over_all_tokens(codes: Codes, model: interp.Model, tokens: interp.Tokens,
                                                   coder: sae.Coder) -> None:  # fmt: skip
    found, over = correlated_latents(codes, n_shown=3)
    assert over == codes.n
    dense = codes.dense(range(codes.d_sae)).astype(float)
    latent = int(codes.counts.argmax())
    meets = [j for j in range(200) if j != latent and (dense[:, j] * dense[:, latent]).any()]
    r = {j: np.corrcoef(dense[:, latent], dense[:, j])[0, 1] for j in meets}
    best = sorted(r, key=lambda j: -r[j])[:3]
    np.testing.assert_array_equal(found.index[latent], best)
    np.testing.assert_allclose(found.value[latent], [r[j] for j in best], atol=1e-6)
    sums = CoordinateSums(200, model.d_model or 0)
    sae.encode(coder, model, tokens, SITE, batch_size=7, watch=sums)
    partners = sums.partners(2)
    rows = model.capture(tokens, SITE).rows(SITE).double().numpy()
    want = np.array([np.corrcoef(dense[:, latent], rows[:, c])[0, 1] for c in range(rows.shape[1])])
    assert list(partners.index[latent]) == list(np.argsort(-np.abs(want))[:2])
    np.testing.assert_allclose(partners.value[latent], want[partners.index[latent]], atol=1e-6)


def test_neighbours_are_the_largest_cosines(coder: sae.Coder) -> None:
    directions = coder.W_dec.detach()
    shown, ring = decoder_neighbours(directions, n_shown=2, n_linked=4)
    unit = (directions / directions.norm(dim=1, keepdim=True)).numpy()
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    np.testing.assert_array_equal(ring.index, np.argsort(-cosine, axis=1)[:, :4])
    np.testing.assert_allclose(shown.value, -np.sort(-cosine, axis=1)[:, :2], atol=1e-6)


def test_the_map_keeps_two_families_of_directions_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, 16, generator=generator)
    directions = centres.repeat_interleave(40, 0) + 0.3 * torch.randn(80, 16, generator=generator)
    alive = np.ones(80, dtype=bool)
    alive[-1] = False
    place = layout(directions, decoder_neighbours(directions)[1], alive)
    first, second = place[:40], place[40:79]
    apart = np.linalg.norm(first.mean(0) - second.mean(0))
    assert apart > 2 * max(first.std(), second.std())
    np.testing.assert_array_equal(place[-1], 0)


def test_logit_effects_are_written_out_by_hand(model: interp.Model, coder: sae.Coder) -> None:
    directions = coder.W_dec.detach()[:4]
    weight = model.module.transformer.ln_f.weight.detach()
    unembed = model.module.lm_head.weight.detach()
    found = logit_directions(model, directions)
    for i in range(4):
        d = directions[i] - directions[i].mean()
        by_hand = torch.stack([(d * weight * unembed[t]).sum() for t in range(len(unembed))])
        torch.testing.assert_close(found[i], by_hand - by_hand.mean(), atol=1e-5, rtol=1e-4)
    effects = logit_effects(model, interp.Site.parse(SITE), directions, n_shown=3, n_bins=7)
    assert not isinstance(effects, str)
    np.testing.assert_array_equal(effects.top[0], found[0].argsort(descending=True)[:3])
    np.testing.assert_allclose(effects.bottom_value[0], found[0].sort().values[:3], rtol=1e-5)
    counts = np.histogram(found[0].numpy(), bins=7, range=(float(found[0].min()), float(found[0].max())))[0]
    np.testing.assert_array_equal(effects.counts[0], counts)
    assert "not added to the residual stream" in str(
        logit_effects(model, interp.Site.parse("blocks.1.mlp.hook_post"), directions)
    )


def test_blocks_read_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    columns = {
        "a": rng.integers(0, 1 << 20, (5, 3)).astype(np.uint32), "b": rng.integers(-9, 9, 7).astype(np.int8),
        "c": rng.standard_normal(4).astype(np.float32), "d": np.zeros(0, dtype=np.uint16),
    }  # fmt: skip
    held, extra = unpacked(packed(columns, {"x": ["</script>", 1]}))
    assert extra == {"x": ["</script>", 1]}
    for name, value in columns.items():
        np.testing.assert_array_equal(held[name], value)
        assert held[name].dtype == value.dtype
    assert [smallest(np.array([n])).dtype for n in (255, 256, 65536)] == [np.uint8, np.uint16, np.uint32]


def test_the_page_holds_the_examples_it_was_given(
    model: interp.Model, tokens: interp.Tokens, coder: sae.Coder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "CHUNK", 64)
    found = gathering.gather(coder, model, tokens, SITE, plan=PLAN)
    data = page.blocks(found, {"model": "m", "site": SITE})
    assert list(data) == ["index", "corpus", "c0", "c1", "c2", "c3"]
    index, extra = unpacked(data["index"])
    np.testing.assert_allclose(index["density"], found.codes.density, rtol=1e-6)
    corpus = unpacked(data["corpus"])[0]["ids"]
    examples = found.examples
    for number, start in enumerate(range(0, 200, 64)):
        block = unpacked(data[f"c{number}"])[0]
        first = int(np.searchsorted(examples.latent, start))
        np.testing.assert_array_equal(
            block["groups"].sum(1),
            np.bincount(examples.latent, minlength=256)[start : start + len(block["groups"])],
        )
        for e in range(0, len(block["at"]), 7):
            i = first + e
            begin, length = examples.row[i] - examples.left[i], examples.length[i]
            shown = [extra["words"][w] for w in corpus[block["at"][e] : block["at"][e] + length]]
            assert shown == [model_text(tokens, t) for t in found.codes.ids[begin : begin + length]]
        owner = np.repeat(examples.latent[first : first + len(block["at"])], block["count"])
        low, high = found.span[owner].T
        value = low + block["value"] / 255 * (high - low)
        part = slice(examples.starts[first], examples.starts[first + len(block["at"])])
        np.testing.assert_allclose(value, examples.value[part], atol=float((high - low).max()) / 400)


def model_text(tokens: interp.Tokens, token: int) -> str:
    return tokens.show(int(token))


def test_the_twin_is_in_neuronpedias_schema(
    model: interp.Model, tokens: interp.Tokens, coder: sae.Coder, codes: Codes, tmp_path: Path
) -> None:
    labels = {"low": (tokens.ids < 20).long()}
    made = sae.dashboard(coder, model, tokens, SITE, out=tmp_path / "f.html", plan=PLAN, labels=labels, causal=[
        int(codes.counts.argmax())])  # fmt: skip
    assert made.json is not None
    records = [json.loads(line) for line in gzip.decompress(made.json.read_bytes()).splitlines()]
    assert [r["index"] for r in records] == np.flatnonzero(codes.counts).tolist()
    wanted = {"index", "examples_quantiles", "top_logits", "bottom_logits", "act_min", "act_max", "histogram"}
    dense = codes.dense(range(200))
    for record in records[::20]:
        assert wanted <= set(record)
        assert len(record["top_logits"]) == len(record["bottom_logits"]) == 10
        assert record["activation_frequency"] == pytest.approx(codes.density[record["index"]])
        for group in record["examples_quantiles"]:
            for example in group["examples"]:
                acts = example["tokens_acts_list"]
                assert len(acts) == len(example["tokens"])
                assert max(acts) == acts[example["train_token_ind"]] <= record["act_max"] + 1e-3
        best = record["examples_quantiles"][0]["examples"][0]["tokens_acts_list"]
        assert max(best) == pytest.approx(dense[:, record["index"]].max(), abs=1e-3)
    assert made.html.stat().st_size == made.n_bytes
    text = made.html.read_text()
    assert "default-src 'none'" in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text


def test_what_cannot_be_shown_is_named(
    model: interp.Model, tokens: interp.Tokens, coder: sae.Coder, codes: Codes, tmp_path: Path
) -> None:
    out = tmp_path / "f.html"
    with pytest.raises(InputError, match=r"reads rows of width 5; blocks.1.hook_resid_post .*another site"):
        sae.dashboard(sae.Coder(5, 8, 2), model, tokens, SITE, out=out)
    body = interp.load(random_model("gpt2").transformer)
    with pytest.raises(ModelError, match="no known unembedding"):
        sae.dashboard(coder, body, tokens, SITE, out=out)
    silent = sae.Coder(model.d_model or 0, 8, 2)
    with torch.no_grad():
        silent.b_enc.fill_(-1e6)
    with pytest.raises(InputError, match="no latent fires on any of"):
        sae.dashboard(silent, model, tokens, SITE, out=out)
    dead = int(np.flatnonzero(codes.counts == 0)[0])
    with pytest.raises(InputError, match=f"latent {dead} fires on none of {codes.n} tokens"):
        sae.dashboard(coder, model, tokens, SITE, out=out, causal=[dead])
    with pytest.raises(InputError, match="labels are"):
        sae.dashboard(coder, model, tokens, SITE, out=out, labels={"x": torch.zeros(2, 2, dtype=torch.long)})
    with pytest.raises(InputError, match="a crosscoder"):
        sae.dashboard(sae.Coder(64, 8, 2, wiring="crosscoder", n_sites=2), model, tokens, SITE, out=out)
    other = sae.Coder(model.d_model or 0, 8, 2, wiring="transcoder")
    with pytest.raises(InputError, match="causal= is for autoencoders"):
        sae.dashboard(other, model, tokens, SITE, out=out, causal=[1])
    assert not out.exists()
