"""Moments: streamed, cut, merged, saved and loaded, the sums are those of all rows at once."""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import interp
from interp.errors import InputError, SiteError, StoreError
from interp.metrics import cka, cka_matrix
from interp.moments import Moments
from tests.models import ids, loaded


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sites(n: int = 900, offset: float = 0.0) -> dict[str, Tensor]:
    x = gaussian(n, 12, 0)
    y = torch.relu(x @ gaussian(12, 20, 1)) + gaussian(n, 20, 2)
    return {"x": x + offset, "y": y - offset / 2, "z": gaussian(n, 7, 3)}


def streamed(rows: dict[str, Tensor], size: int, **options) -> Moments:
    made = Moments({site: x.shape[1] for site, x in rows.items()}, **options)
    for start in range(0, len(rows["x"]), size):
        made.update({site: x[start : start + size] for site, x in rows.items()})
    return made


@pytest.mark.parametrize(("products", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
@pytest.mark.parametrize("unbiased", [True, False])
def test_a_stream_gives_the_value_of_all_rows_at_once(
    products: str, tolerance: float, unbiased: bool
) -> None:
    rows = sites(offset=20.0)
    moments = streamed(rows, 37, cross=True, products=products, chunk=256)
    for a, b in itertools.product(rows, repeat=2):
        whole = cka(rows[a], rows[b], unbiased=unbiased).value
        value = cka(moments[a], moments[b], unbiased=unbiased).value
        assert value == pytest.approx(whole, rel=tolerance, abs=tolerance)
    np.testing.assert_allclose(moments["x"].covariance, torch.cov(rows["x"].T), rtol=0, atol=20 * tolerance)
    np.testing.assert_allclose(
        moments["y"].mean, rows["y"].mean(0), rtol=1e-9 if products == "float64" else 1e-6
    )


def test_how_the_updates_were_cut_changes_no_bit() -> None:
    rows = sites()
    a, b = (streamed(rows, size, cross=True, chunk=256).sums.table for size in (900, 11))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("cross", [False, True])
def test_rows_that_wait_are_kept_as_they_came(cross: bool) -> None:
    rows, labels = sites(n=200), torch.arange(200) % 3
    whole = Moments.of(rows, labels=labels, cross=cross, block=0, chunk=64, products="float64")
    made = Moments({s: x.shape[1] for s, x in rows.items()}, cross=cross, block=0, chunk=64, products="float64",
                   n_classes=3)  # fmt: skip
    for start, stop in ((0, 10), (10, 100), (100, 101), (101, 200)):
        part = {s: x[start:stop].clone() for s, x in rows.items()}
        made.update(part, labels=labels[start:stop])
        for x in part.values():
            x.fill_(1e9)  # the caller's memory is used for something else
    assert all(torch.equal(value, made.sums.table[key]) for key, value in whole.sums.table.items())


def test_float_types_and_labels_may_change_from_update_to_update() -> None:
    x = gaussian(90, 5, 0).bfloat16()
    made = Moments({"x": 5}, block=0, chunk=64, n_classes=2, products="float64")
    made.update({"x": x[:20]})
    made.update({"x": x[20:50].double()}, labels=torch.arange(30) % 2)
    made.update({"x": x[50:].float()})
    whole = Moments.of(x.double(), block=0, chunk=64, products="float64")
    torch.testing.assert_close(made["x"].scatter, whole["x"].scatter, rtol=1e-12, atol=1e-12)
    assert made.sums[("class_n",)].tolist() == [15.0, 15.0]
    torch.testing.assert_close(
        made.sums["class_first", "x"][0] + 15 * made.shift["x"],
        x[20:50:2].double().sum(0),
        rtol=1e-6,
        atol=1e-6,
    )


def test_rows_taken_in_under_inference_mode_are_used_outside_it(tmp_path: Path) -> None:
    x, labels = gaussian(100, 4, 0), torch.arange(100) % 2
    whole = Moments.of(x, labels=labels, block=0, chunk=64, products="float64")
    with torch.inference_mode():
        made = Moments({"x": 4}, block=0, chunk=64, n_classes=2, products="float64")
        made.update({"x": x[:80] + 0}, labels=labels[:80] + 0)  # inference tensors
        made.update({"x": x[80:90].float().double()}, labels=labels[80:90])
    made.update({"x": x[90:]}, labels=labels[90:])
    torch.testing.assert_close(made["x"].mean, x.mean(0), rtol=0, atol=1e-7)
    torch.testing.assert_close(made["x"].scatter, whole["x"].scatter, rtol=0, atol=1e-4)
    assert made.sums[("class_n",)].tolist() == [50.0, 50.0]
    with torch.inference_mode():
        again = Moments.load(made.save(tmp_path / "m.safetensors"))
    again.update({"x": x})
    assert again.n == 200
    assert bool(torch.isfinite(again["x"].scatter).all())


def test_float32_rows_are_widened_before_the_origin_is_taken_away() -> None:
    x = (gaussian(500, 6, 0) * 0.1 + torch.linspace(-9, 9, 500)[:, None]).float()
    made = Moments.of(x, block=0, chunk=64, products="float64")
    truth = torch.cov(x.double().T) * 499
    np.testing.assert_allclose(made["x"].scatter, truth, rtol=1e-12)


def test_merging_shards_in_any_order_is_the_same() -> None:
    rows = sites(offset=5.0)
    drift = {site: x + torch.linspace(0, 3, len(x))[:, None] for site, x in rows.items()}  # origins differ
    cuts = [(0, 100), (100, 612), (612, 900)]
    shards = [
        Moments.of({s: x[low:high] for s, x in drift.items()}, cross=True, products="float64")
        for low, high in cuts
    ]
    whole = Moments.of(drift, cross=True, products="float64")
    values = []
    for order in itertools.permutations(shards):
        joined = order[0].merge(*order[1:])
        assert joined.n == 900
        values.append(np.asarray(cka_matrix(joined).value))
        np.testing.assert_allclose(joined["x"].scatter, whole["x"].scatter, rtol=1e-12, atol=1e-9)
    for value in values:
        np.testing.assert_allclose(value, np.asarray(cka_matrix(whole).value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [300.0, 3000.0])
def test_a_large_common_mean_in_float32_does_not_drown_a_stream(norm: float) -> None:
    x = gaussian(2000, 16, 0)
    y = 0.48 * x @ torch.linalg.qr(gaussian(16, 16, 2))[0] + gaussian(2000, 16, 1)
    truth = cka(x, y).value
    assert 0.02 < truth < 0.1 or 0.1 <= truth < 0.5  # neither 0 nor 1, as a drowned one would read
    offset = torch.full((16,), norm / 4)
    wide = {"x": (x + offset).float(), "y": (y - offset).float()}
    moments = streamed(wide, 100, cross=True)
    # float32 itself rounds rows of norm 3000 to 2e-4 a coordinate, which is the error that remains
    assert cka(moments["x"], moments["y"]).value == pytest.approx(truth, abs=1e-4)


def test_blocks_estimate_the_exact_value_within_their_own_error() -> None:
    rows = sites(n=8000)
    moments = streamed(rows, 500, cross=True)
    exact, blocks = (cka_matrix(moments, method=method) for method in ("exact", "blocks"))
    error = np.abs(np.asarray(blocks.value) - np.asarray(exact.value))[np.triu_indices(3, 1)]
    assert (error < 3 * np.asarray(blocks.stderr)[np.triu_indices(3, 1)]).all()
    by_rows = cka_matrix(rows, method="blocks")
    # the same blocks of 128 rows, float32 against float64 products
    np.testing.assert_allclose(np.asarray(by_rows.value), np.asarray(blocks.value), atol=1e-5)
    draws = np.std([cka(sites_of(s)["x"], sites_of(s)["y"]).value for s in range(12)], ddof=1)
    assert np.asarray(cka_matrix(sites_of(0), method="blocks").stderr)[0, 1] == pytest.approx(draws, rel=0.6)


def sites_of(seed: int) -> dict[str, Tensor]:
    x = gaussian(4000, 6, 100 + seed)
    return {"x": x, "y": x + 2 * gaussian(4000, 6, 200 + seed)}


def test_an_unequal_last_block_counts_by_its_pairs() -> None:
    rows = {s: x[:600] for s, x in sites().items()}
    last = streamed(rows, 600, block=256).sums[("block_weight",)]
    assert float(last.sum()) == 2 * 256 * 253 + 88 * 85
    shorter = streamed({s: x[:515] for s, x in rows.items()}, 600, block=256).sums[("block_weight",)]
    assert float(shorter.sum()) == 2 * 256 * 253  # three rows allow no HSIC_1


def test_parts_give_the_jackknife_error_of_rows_left_out() -> None:
    rows = sites(n=2048)
    moments = streamed(rows, 128, cross=True, chunk=256, parts=8, products="float64")
    by_rows = cka(rows["x"], rows["y"], n_blocks=8)
    assert cka(moments["x"], moments["y"]).stderr == pytest.approx(by_rows.stderr, rel=1e-6)


def test_classes_and_the_twin_are_those_of_the_rows() -> None:
    rows, labels = sites(offset=3.0), torch.arange(900) % 5 - 1
    moments = Moments.of(rows, labels=labels, products="float64", chunk=256)
    sums, shift = moments.sums, moments.shift["x"]
    assert sums[("class_n",)].tolist() == [180.0] * 4
    for c in range(4):
        torch.testing.assert_close(sums["class_first", "x"][c] + 180 * shift, rows["x"][labels == c].sum(0))
    unit = torch.nn.functional.normalize(rows["x"])
    torch.testing.assert_close(sums["twin_second", "x"], unit.T @ unit)
    torch.testing.assert_close(sums["twin_first", "x"], unit.sum(0))


def test_a_wide_product_of_a_site_with_itself_is_that_of_its_rows() -> None:
    x = gaussian(64, 700, 0)
    made = Moments.of(x, products="float64", chunk=256)
    torch.testing.assert_close(made["x"].scatter, (x - x.mean(0)).T @ (x - x.mean(0)))


def test_it_comes_back_from_disk(tmp_path: Path) -> None:
    rows = sites()
    moments = Moments.of(rows, cross=[("x", "z")], labels=torch.arange(900) % 3)
    again = Moments.load(moments.save(tmp_path / "m.safetensors"))
    assert again.config == moments.config
    assert again.n == 900
    assert cka(again["x"], again["z"]).value == cka(moments["x"], moments["z"]).value
    assert again.merge(moments).n == 1800


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    file = Moments.of(sites()).save(tmp_path / "m.safetensors")
    with safe_open(file, framework="pt") as held:
        head = held.metadata()
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    with pytest.raises(StoreError, match="no moments at"):
        Moments.load(tmp_path / "none")
    save_file(tensors, tmp_path / "foreign.safetensors")
    with pytest.raises(StoreError, match="no moments file"):
        Moments.load(tmp_path / "foreign.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if k != "0/second/0/0"},
        tmp_path / "less.safetensors",
        metadata=head,
    )
    with pytest.raises(StoreError, match="'0/second/0/0'"):
        Moments.load(tmp_path / "less.safetensors")
    save_file(
        tensors | {"0/norm/0": torch.tensor(torch.nan).double()}, tmp_path / "nan.safetensors", metadata=head
    )
    with pytest.raises(StoreError, match="not finite"):
        Moments.load(tmp_path / "nan.safetensors")
    later = json.loads(head["interp_moments"]) | {"schema": 99}
    save_file(tensors, tmp_path / "later.safetensors", metadata={"interp_moments": json.dumps(later)})
    with pytest.raises(StoreError, match="schema 99"):
        Moments.load(tmp_path / "later.safetensors")
    (tmp_path / "torn").write_bytes(file.read_bytes()[:200])
    with pytest.raises(StoreError, match="torn"):
        Moments.load(tmp_path / "torn")


def test_memory_is_told_before_it_is_allocated(caplog: pytest.LogCaptureFixture) -> None:
    widths = {str(i): 768 for i in range(12)}
    few, all_pairs = (Moments.bytes_needed(widths, cross=cross) for cross in (False, True))
    # 66 cross blocks of 768 x 768 float64, and two vectors each
    assert all_pairs - few == pytest.approx(66 * 8 * 768**2, rel=0.01)
    with pytest.raises(InputError, match="max_bytes allows 1 MB"):
        Moments(widths, cross=True, max_bytes=10**6)
    with caplog.at_level(logging.INFO, logger="interp"):
        Moments({"x": 4})
    assert "will be allocated" in caplog.text


def test_the_stated_memory_is_what_the_sums_take() -> None:
    moments = Moments({"a": 64, "b": 32}, cross=True, n_classes=3, chunk=256)
    held = sum(value.nbytes for value in moments.sums.table.values())
    assert held <= moments.config.n_bytes <= held + 10 * moments.config.chunk * 96 * 4


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ({"x": torch.zeros(5, 2), "y": torch.zeros(6, 2)}, None, "different numbers of rows"),
        ({"x": torch.zeros(5, 3), "y": torch.zeros(5, 2)}, None, r"x must be floats \[sample, 2\]"),
        ({"x": torch.zeros(5, 2).long(), "y": torch.zeros(5, 2)}, None, "int64"),
        ({"x": torch.zeros(5, 2), "y": torch.zeros(5, 2)}, torch.full((5,), 7), "n_classes = 3"),
        (
            {"x": torch.zeros(5, 2), "y": torch.full((5, 2), torch.nan)},
            None,
            "y holds NaN or infinity in 5 of 5",
        ),
    ],
)
def test_bad_rows_are_named(rows, labels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Moments({"x": 2, "y": 2}, n_classes=3).update(rows, labels=labels)


def test_bad_rows_can_be_dropped_and_are_counted() -> None:
    rows = sites()
    rows["y"][5, 0], rows["z"][7, 1] = torch.inf, torch.nan
    moments = Moments.of(rows, cross=True, bad_rows="drop", products="float64")
    assert (moments.n, moments.dropped) == (898, 2)
    good = torch.ones(900, dtype=torch.bool)
    good[[5, 7]] = False
    assert cka(moments["x"], moments["y"]).value == pytest.approx(
        cka(rows["x"][good], rows["y"][good]).value, rel=1e-9
    )


def test_what_was_not_kept_is_said() -> None:
    moments = Moments.of(sites(), cross=[("x", "y")])
    with pytest.raises(InputError, match="cross block of x and z was not kept"):
        cka(moments["x"], moments["z"])
    with pytest.raises(SiteError, match="no moments of 'w'"):
        moments["w"]
    with pytest.raises(InputError, match="different Moments"):
        cka(moments["x"], Moments.of(sites())["y"])
    with pytest.raises(InputError, match="one side is moments"):
        cka(moments["x"], sites()["y"])
    with pytest.raises(InputError, match="cannot be merged"):
        moments.merge(Moments.of(sites()))
    with pytest.raises(SiteError, match="'q'"):
        Moments({"x": 2}, cross=[("x", "q")])
    with pytest.raises(InputError, match="no rows yet"):
        _ = Moments({"x": 2})["x"].mean


def test_a_model_streamed_equals_its_captured_and_its_stored_rows(tmp_path: Path) -> None:
    model, tokens = loaded("gpt2", "transformers"), interp.Tokens.of([[5, 6, 7, 8], [9, 10], [3, 4, 5]] * 5)
    where = "blocks.*.hook_resid_post"
    acts = model.capture(tokens, where)
    options = {"cross": True, "products": "float64"}
    kept = Moments.of(acts, **options)
    live = Moments.stream(model, tokens, where, batch_size=4, **options)
    store = interp.harvest(model, tokens, where, tmp_path / "acts")
    stored = Moments.of(store, **options)
    assert kept.n == live.n == stored.n == 45
    for other in (live, stored):
        # the passes are float32 over other batches
        np.testing.assert_allclose(
            np.asarray(cka_matrix(other).value), np.asarray(cka_matrix(kept).value), atol=1e-5
        )


def test_labels_of_tokens_follow_the_mask_and_the_positions() -> None:
    model, tokens = loaded("gpt2", "transformers"), interp.Tokens.full(ids(6, 5))
    labels = torch.arange(30).view(6, 5) % 3
    whole = Moments.stream(model, tokens, "blocks.0.hook_resid_post", labels=labels, batch_size=4)
    assert whole.sums[("class_n",)].tolist() == [10.0, 10.0, 10.0]
    last = Moments.stream(
        model, tokens, "blocks.0.hook_resid_post", labels=labels, positions="last", batch_size=4
    )
    assert last.sums[("class_n",)].tolist() == torch.bincount(labels[:, -1], minlength=3).double().tolist()


@pytest.mark.slow
def test_a_million_rows_of_twelve_sites_run_in_constant_memory() -> None:
    script = """
import resource, torch
from interp.moments import Moments
torch.set_num_threads(1)
made = Moments({str(i): 24 for i in range(12)}, cross=True)
generator = torch.Generator().manual_seed(0)
peaks = []
for step in range(1000):
    base = torch.randn(1000, 24, generator=generator)
    made.update({str(i): base + i for i in range(12)})
    if step in (99, 999):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert made.n == 1_000_000, made.n
assert peaks[1] - peaks[0] < 8 * 1024, peaks  # kilobytes: ten times the rows, no more memory
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
