"""Group networks over training, the universality table, and the live table's command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from circuits.groups import Progress, live_table, progress_of, reverse_engineer, universality
from circuits.groups.survey import main
from interp.errors import InputError
from interp.toys import Group, GroupRun, grok, irrep_network, lookup_network, recipe_for, train


@pytest.fixture(scope="module")
def run() -> GroupRun:
    return grok("D15", seed=0)


def test_restricted_loss_falls_and_excluded_loss_rises_before_the_test_loss_falls(run: GroupRun) -> None:
    """The published progress measures, live: the algorithm forms while the network still seems to memorise."""
    progress = progress_of(run)
    measures = progress.measures
    assert progress.epochs[0] == 0
    assert len(progress.to_frame()) == len(progress.epochs) == len(run.checkpoints)
    # at the first check the training pairs are known and the test loss is above chance, log 30 = 3.4 nats
    assert measures["train_accuracy"][1] == 1
    assert measures["test_loss"][1] > measures["test_loss"][0]
    assert measures["restricted"][1] < measures["restricted"][0]
    assert progress.falls_first
    # memorising lowers the excluded loss at first; then it rises, while the test loss is still above chance
    assert min(measures["excluded"]) < 0.6 * measures["excluded"][0]
    assert progress.excluded_rise > 3
    assert progress.rises_first
    assert measures["restricted"][-1] < measures["test_loss"][-1]
    assert measures["key_share"][-1] > measures["key_share"][0] + 0.2
    assert measures["explained"][-1] > 0.4
    assert measures["squared_weights"][-1] < max(measures["squared_weights"])
    assert measures["participation"][-1] < measures["participation"][0]
    assert progress.phase == "comprehension"  # the lag is less than 1000 epochs
    learned = progress.order_of_learning()
    assert {label for label, _ in learned} >= set(progress.key)
    assert [epoch for _, epoch in learned] == sorted(epoch for _, epoch in learned)
    assert progress.first_epoch("test_accuracy", 0.999) <= progress.epochs[-1]
    assert len(progress.plot().data) == 4


def progress_with(**measures: list[float]) -> Progress:
    n = len(measures["test_loss"])
    return Progress(
        run="written by hand", epochs=tuple(range(n)), irreps=(), key=(), similarity=torch.zeros(n, 0).double(),
        measures={name: tuple(values) for name, values in measures.items()}, phase="grokking",
    )  # fmt: skip


def test_what_rises_or_falls_first_is_told_from_the_curves() -> None:
    early = progress_with(test_loss=[3, 8, 8, 1, 0.1], excluded=[3, 1, 2, 4, 5], restricted=[3, 2, 1, 0.1, 0])
    assert early.excluded_rise == 5
    assert early.rises_first
    assert early.falls_first
    assert (early.fallen("restricted"), early.fallen("test_loss")) == (2, 3)
    late = progress_with(test_loss=[3, 8, 1, 1, 0.1], excluded=[3, 1, 1, 4, 5], restricted=[3, 3, 2, 1, 0])
    assert not late.rises_first
    assert not late.falls_first
    # a network that only memorises: nothing rises, nothing falls
    never = progress_with(test_loss=[3, 8, 8], excluded=[3, 1, 0.5], restricted=[3, 3, 3])
    assert never.excluded_rise == 1
    assert not never.rises_first
    assert never.fallen("test_loss") == 3


def test_the_last_checkpoint_has_the_numbers_of_the_whole_analysis(run: GroupRun) -> None:
    progress, found = progress_of(run, every=3), reverse_engineer(run, with_cosets=False)
    for name, value in (
        ("train_loss", found.losses["train"]),
        ("test_loss", found.losses["test"]),
        ("excluded", found.losses["excluded"]),
        ("restricted", found.losses["restricted"]),
        ("explained", found.logits["explained"]),
    ):
        assert progress.measures[name][-1] == pytest.approx(value, rel=1e-9)
    assert progress.key == found.key


def test_a_run_without_checkpoints_is_refused() -> None:
    bare = train(Group("C5"), recipe=recipe_for("C5", "mlp", epochs=50))
    with pytest.raises(InputError, match="kept no checkpoints"):
        progress_of(bare)


def test_universality_lists_what_each_network_chose() -> None:
    group = Group("S4")
    chosen = (["(3,1)"], ["(3,1)", "sign"], ["(2,2)"])
    readings = [reverse_engineer(irrep_network(group, labels), group) for labels in chosen]
    readings.append(reverse_engineer(lookup_network(group), group))
    table = universality(readings, ["a", "b", "c", "memory"])
    assert table.loc["networks"].to_dict() == {"(3,1)": 2, "(2,2)": 1, "(2,1,1)": 0, "sign": 1}
    assert table.loc["memory"].isna().all()
    assert table.loc["b", "sign"] == pytest.approx(0.5**0.5)
    with pytest.raises(InputError, match="of one group"):
        universality([readings[0], reverse_engineer(irrep_network(Group("S3"), ["sign"]), "S3")])
    with pytest.raises(InputError, match="4 readings were given 1 names"):
        universality(readings, ["a"])


def test_one_command_writes_the_live_table_and_goes_on_from_kept_runs(tmp_path: Path) -> None:
    out, runs = tmp_path / "table", tmp_path / "runs"
    arguments = ["--out", str(out), "--runs", str(runs), "--groups", "D15", "--seeds", "2"]
    assert main(arguments) == 0
    rows = json.loads(out.with_suffix(".json").read_text())
    assert [(row["group"], row["seed"], row["test_accuracy"]) for row in rows] == [
        ("D15", 0, 1.0),
        ("D15", 1, 1.0),
    ]
    for row in rows:
        assert row["restricted_falls_first"]
        assert row["excluded_rises_first"]
        assert row["excluded_loss"] > 3 * row["excluded_lowest"]
        assert row["excluded_loss"] > 100 * row["restricted_loss"]
        assert 1 <= len(row["key_irreps"]) <= 6
        assert row["accuracy_only_key"] > 0.97
        assert row["accuracy_without_key"] < 0.2
    assert set(rows[0]["key_irreps"]) != set(rows[1]["key_irreps"])
    assert out.with_suffix(".md").read_text().count("\n") == 4
    kept = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert live_table([("D15", "mlp")], seeds=[0, 1], runs=runs)[0]["epochs"] == rows[0]["epochs"]
    assert kept == {path: path.stat().st_mtime_ns for path in runs.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network"),
    [("S5", "mlp"), ("C113", "mlp"), ("C59", "transformer"), ("A5", "mlp"), ("C31", "mlp"), ("S4", "mlp")],
)
def test_the_live_table_s_findings_hold(name: str, network: str) -> None:
    (row,) = live_table([(name, network)], seeds=[0])
    assert row["test_accuracy"] >= 0.999
    assert row["restricted_falls_first"]
    assert row["excluded_rises_first"]
    assert row["excluded_loss"] > 1.5 * row["excluded_lowest"]
    assert len(row["key_irreps"]) <= 8
    assert row["accuracy_only_key"] > 0.97
    # of S4 the (2,1,1) is left, which is not key: 9 of its 24 dimensions
    assert row["accuracy_without_key"] < (0.4 if name == "S4" else 0.2)
