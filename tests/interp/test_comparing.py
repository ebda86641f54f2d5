"""Two studies side by side: identical ones, other weights, untrained weights, and what must not be subtracted."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import interp
from interp.cli import main
from interp.errors import StoreError
from interp.report import read
from interp.study import stations as registry
from interp.study.analysis import analyze
from interp.study.comparing import compare
from interp.study.comparison_page import _depth, _overview
from interp.study.effort import Effort
from interp.study.sides import DIFFERS, SAME, WITHIN, Row
from interp.toys import Shape, Transformer
from tests.interp.fake_stations import Fake, failing, section

SMALL = Path(__file__).parents[1] / "data" / "mini_small" / "trajectory"


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    yield
    for name in ("interp", "probes", "sae", "circuits"):
        logging.getLogger(name).handlers.clear()


def network(seed: int, n_layers: int = 3) -> interp.Model:
    shape = Shape(d_vocab=11, n_ctx=8, n_layers=n_layers, d_model=16, n_heads=2, d_mlp=32)
    return interp.load(Transformer(shape, generator=torch.Generator().manual_seed(seed)))


def study(folder: Path, seed: int = 0, **options: Any) -> Any:
    given: dict[str, Any] = {"stations": ["geometry"], "max_tokens": 1600, "n_layers": 3, **options}
    model = network(seed, given.pop("n_layers"))
    return analyze(model, out=folder, **given)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return study(tmp_path_factory.mktemp("first"))


def test_a_study_against_its_own_repetition_shows_no_difference(first, tmp_path) -> None:
    again = study(tmp_path / "again")
    found = compare(first, again.folder, out=tmp_path / "c")
    assert found.rows
    assert {row.verdict for row in found.rows} == {SAME}
    assert not found.differing
    assert not found.hurdles
    assert found.similarity is not None
    np.testing.assert_allclose(np.diagonal(np.asarray(found.similarity.value)), 1.0, atol=1e-9)
    page = read(found.json)
    assert "no difference at all" in page["sections"][0]["summary"]
    assert found.html.is_file()
    assert len(found.to_frame()) == len(found.rows)


def test_other_weights_differ_and_their_layers_are_less_alike_than_their_own(first, tmp_path) -> None:
    other = study(tmp_path / "other", seed=1)
    found = compare(first, other, out=tmp_path / "c")
    assert found.differing
    for row in found.differing:
        assert None not in (row.a, row.b, row.low, row.high)
        low, high, a, b = (float(x) for x in (row.low, row.high, row.a, row.b) if x is not None)
        assert low > 0 or high < 0
        assert row.difference == pytest.approx(b - a)
    assert found.similarity is not None
    assert found.shuffled is not None
    value = np.asarray(found.similarity.value)
    assert value[-1, -1] < 0.99
    assert found.shuffled < 0.1  # debiased: unrelated rows read about 0


def test_figures_of_other_tokens_or_presets_are_not_subtracted(first, tmp_path) -> None:
    for name, options in (("tokens", {"max_tokens": 800}), ("preset", {"preset": "quick"})):
        other = study(tmp_path / name, **dict[str, Any](options))
        found = compare(first, other, out=tmp_path / f"c-{name}")
        assert any(h.what == name and h.stops == "differences" for h in found.hurdles)
        assert {row.verdict for row in found.rows} == {f"not compared: other {name}"}
        assert all(row.difference is None for row in found.rows)
        assert (found.similarity is None) == (name == "tokens")
        assert f"Other {name}" in read(found.json)["warnings"][0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def test_other_inputs_and_other_labels_of_a_network_of_numbers_are_seen(tmp_path) -> None:
    torch.manual_seed(0)
    net, x, given = Net(), torch.randn(80, 5), {"stations": ["probe"], "preset": "quick"}
    labels = {"y": (x[:, 0] > 0).long()}
    here = analyze(net, out=tmp_path / "here", inputs=x, labels=labels, **given)
    other = analyze(net, out=tmp_path / "other", inputs=2 * x, labels=labels, **given)
    named = analyze(net, out=tmp_path / "named", inputs=x, labels={"y": (x[:, 1] > 0).long()}, **given)
    assert {row.verdict for row in compare(here, other, out=tmp_path / "c").rows} == {
        "not compared: other tokens"
    }
    found = compare(here, named, out=tmp_path / "d")
    assert [(h.what, h.stops) for h in found.hurdles] == [("labels", "probe")]
    assert {row.verdict for row in found.rows} == {"not compared: other labels"}


def test_an_effort_of_ones_own_is_not_the_preset_of_its_name(first, tmp_path) -> None:
    other = study(tmp_path / "other", preset=Effort(scale=0.1))
    found = compare(first, other, out=tmp_path / "c")
    assert [(h.what, h.a, h.b) for h in found.hurdles] == [
        ("preset", "standard, scale 1.0", "standard, scale 0.1")
    ]


def test_activations_that_are_gone_are_named_without_a_path(first, tmp_path) -> None:
    bare = [shutil.copytree(first.folder, tmp_path / name) for name in ("one", "two")]
    for folder in bare:
        shutil.rmtree(folder / "acts")
    half = compare(first, bare[0], out=tmp_path / "c")
    assert [(h.what, h.a, h.b) for h in half.hurdles] == [("activations", "kept", "none kept")]
    none = compare(*bare, out=tmp_path / "d")
    assert not none.hurdles
    assert none.similarity is None


def test_a_station_that_fails_in_a_side_studied_here_is_an_exit_code(
    first, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(registry, "stations", lambda: (Fake("bad", 1, failing),))
    arguments = ["compare", str(first.folder), "group:D15", "--preset", "quick", "--out", str(tmp_path / "c")]
    assert main(arguments) == 1
    assert (tmp_path / "c" / "compare.html").is_file()
    capsys.readouterr()


def test_a_function_in_a_file_is_a_side(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Linear(4, 6), nn.ReLU()), torch.arange(40.0).view(10, 4)\n"
    )
    good = Fake("good", 1, section)
    monkeypatch.setattr(registry, "stations", lambda: (good,))
    source = f"{tmp_path / 'net.py'}:make"
    arguments = ["compare", source, source, "--device", "cpu", "--out", str(tmp_path / "c")]
    for resume, n_runs in ((), 2), (("--no-resume",), 4):
        assert main([*arguments, *resume]) == 0
        assert good.n_runs == n_runs
    assert read(tmp_path / "c" / "compare.json")["provenance"]["a"]["model"]["class"] == "Sequential"
    capsys.readouterr()


def test_chance_counts_only_figures_with_intervals() -> None:
    given = {"kind": "k", "site": "", "measure": "", "a": 1.0, "b": 1.0, "difference": 0.0}
    rows = [Row(name=str(i), verdict=SAME, **given) for i in range(100)]
    rows += [Row(name="x", verdict=WITHIN, low=-1.0, high=1.0, **given) for _ in range(40)]
    assert "0 of 40 figures with intervals" in _overview(("a", "b"), [], rows).summary
    assert "at most about 2." in _overview(("a", "b"), [], rows).summary


def test_sites_without_a_layer_have_their_depth() -> None:
    places = ("hook_embed", "blocks.0.hook_resid_pre", "blocks.1.hook_resid_post", "ln_final.hook_out")
    assert [_depth(site, 2) for site in places] == [0.0, 0.0, 1.0, 1.0]


def test_another_number_of_layers_stops_single_sites_but_not_curves(first, tmp_path) -> None:
    deeper = study(tmp_path / "deeper", n_layers=4)
    found = compare(first, deeper, out=tmp_path / "c")
    assert {row.difference for row in found.rows} == {None}
    assert any(h.what == "layers" for h in found.hurdles)
    assert any("another number of layers" in row.verdict for row in found.rows)
    assert found.similarity is not None
    assert np.shape(found.similarity.value)[0] != np.shape(found.similarity.value)[1]
    section = read(found.json)["sections"][-1]
    assert "25%" in section["plates"][0]["figure"]["data"][0]["x"]


def test_intervals_are_combined_by_squares(first, tmp_path) -> None:
    changed = tmp_path / "changed"
    (changed / "sections").mkdir(parents=True)
    report = read(first.json)
    one = report["sections"][0]["findings"][0]
    a, half = one["value"], (one["high"] - one["low"]) / 2
    for shift, expected in (
        (2.9, DIFFERS),
        (2.7, "within error"),
    ):  # half sqrt(2) is the border: 1.41 of 2 halves
        one["value"], one["low"], one["high"] = (
            a + shift / 2 * half,
            a + (shift / 2 - 1) * half,
            a + (shift / 2 + 1) * half,
        )
        (changed / "report.json").write_text(json.dumps(report))
        row = compare(first, changed, out=tmp_path / "c").rows[0]
        assert row.verdict == expected
        assert row.high is not None
        assert row.low is not None
        assert row.high - row.low == pytest.approx(2 * 2**0.5 * half)


def test_a_station_that_one_study_lacks_is_named(first, tmp_path) -> None:
    other = study(tmp_path / "other", stations=["geometry", "circuit"])
    found = compare(first, other, out=tmp_path / "c")
    assert not any(h.stops for h in found.hurdles)
    assert {row.verdict for row in found.rows if row.kind == "part"} <= {"only in the second"}
    assert any(row.verdict == SAME for row in found.rows if row.kind == "geometry")


def test_the_command_compares_folders_and_refuses_what_is_no_study(first, tmp_path, capsys) -> None:
    out = tmp_path / "c"
    assert main(["compare", str(first.folder), str(first.json), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["differ"] == []
    assert said["judged"] == said["figures"] > 0
    assert main(["compare", str(first.folder), str(tmp_path / "nothing"), "--out", str(out)]) == 1
    assert "nothing" in capsys.readouterr().err
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "report.json").write_text("{}")
    with pytest.raises(StoreError, match="no report of schema"):
        compare(first, tmp_path / "odd", out=out)


@pytest.mark.slow
def test_two_checkpoints_of_one_run_are_more_alike_than_a_trained_and_an_untrained_network(tmp_path) -> None:
    from interp.metrics.baselines import random_init

    models = [interp.load(str(SMALL / f"step-000{step}")) for step in (120, 600)]
    models.append(random_init(models[1], seed=0))
    tokens = interp.toys.embedded("mini").sample(4000).tokens
    early, late, bare = (
        analyze(m, out=tmp_path / f"s{i}", tokens=tokens, stations=["geometry"], preset="quick")
        for i, m in enumerate(models)
    )
    one, other = compare(early, late, out=tmp_path / "c"), compare(late, bare, out=tmp_path / "d")
    assert one.differing  # training changed it
    assert one.similarity is not None
    assert other.similarity is not None
    alike = [float(np.mean(c.similarity.value)) for c in (one, other) if c.similarity is not None]
    assert alike[0] > alike[1] + 0.15


@pytest.mark.slow
def test_mini_against_itself_untrained(tmp_path) -> None:
    """A random-init control: trained and untrained layers differ in nearly every figure and are hardly alike."""
    from interp.metrics.baselines import random_init

    model = interp.load("mini")
    tokens = interp.toys.embedded("mini").sample(6000).tokens
    trained, untrained = (
        analyze(m, out=tmp_path / name, tokens=tokens, stations=["geometry"], preset="quick")
        for name, m in (("trained", model), ("untrained", random_init(model, seed=1)))
    )
    found = compare(trained, untrained, out=tmp_path / "c")
    assert len(found.differing) > 0.8 * found.judged
    assert found.similarity is not None
    assert float(np.asarray(found.similarity.value)[-1, -1]) < 0.5
