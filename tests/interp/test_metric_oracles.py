"""Values of other people's libraries: the file that the tests read is what those libraries give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.metrics import cka, pwcca
from interp.moments import Moments
from tests.interp.oracles import metric_data as data

ORACLES = Path(__file__).parent / "oracles"
VALUES = json.loads((ORACLES / "metric_values.json").read_text())["values"]


@pytest.mark.parametrize("norm", [300, 3000])
def test_unbiased_cka_about_a_large_common_mean_is_that_of_float64_grams(norm: int) -> None:
    x, y = map(torch.from_numpy, data.far(norm))
    assert x.dtype == torch.float32
    published = VALUES[f"ckatorch linear unbiased, mean {norm}"]  # it raises the rows to float64 first
    assert 0.3 < published < 0.4
    moments = Moments.of({"x": x, "y": y}, cross=True)
    for value in (cka(x, y).value, cka(moments["x"], moments["y"]).value):
        assert value == pytest.approx(published, abs=1e-6)
    exact = hsic(x.double() - x.double().mean(0), y.double() - y.double().mean(0))
    assert (
        abs(hsic(x, y) - exact) > 0.5 * exact
    )  # float32 Grams of rows that were not shifted: nothing is left of it


def hsic(x: Tensor, y: Tensor) -> float:
    """n (n - 3) HSIC_1 from Grams in the rows' own float type."""
    k, m = (side @ side.T for side in (x, y))
    k.fill_diagonal_(0)
    m.fill_diagonal_(0)
    n = len(x)
    return float(
        (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(0))
    )


def test_pwcca_as_published_leaves_the_whitening_of_its_variates_out() -> None:
    x, y = (torch.from_numpy(side - side.mean(0)) for side in data.pair())
    x, y = y, x  # the narrower side first, as the published code needs it
    roots = [v / eig.sqrt() @ v.T for eig, v in (torch.linalg.eigh(a.T @ a) for a in (x, y))]
    u, r, _ = torch.linalg.svd(roots[0] @ (x.T @ y) @ roots[1], full_matrices=False)
    weights = (torch.linalg.qr(x @ u)[0].T @ x).abs().sum(1)
    published = float((weights * r).sum() / weights.sum())
    assert pwcca(x, y, compat="svcca").value == pytest.approx(published, abs=1e-9)
    assert pwcca(x, y).value != pytest.approx(published, abs=1e-4)


def oracle_python() -> str | None:
    """Where the libraries are: the interpreter named by INTERP_ORACLES, or this one."""
    return os.environ.get("INTERP_ORACLES") or (sys.executable if find_spec("ckatorch") else None)


@pytest.mark.skipif(
    oracle_python() is None, reason="the libraries of oracles/requirements.txt are not installed"
)
def test_the_kept_values_are_those_of_the_libraries(tmp_path: Path) -> None:
    out = tmp_path / "values.json"
    command = [str(oracle_python()), str(ORACLES / "recompute_metrics.py"), str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    made = json.loads(out.read_text())["values"]
    assert set(made) == set(VALUES)
    for name, value in VALUES.items():
        np.testing.assert_allclose(made[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
