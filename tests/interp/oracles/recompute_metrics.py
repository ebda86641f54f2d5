"""Recompute ``metric_values.json`` with other people's libraries, in an environment of its own.

    python -m venv oracles && oracles/bin/pip install -r tests/interp/oracles/requirements.txt
    oracles/bin/python tests/interp/oracles/recompute_metrics.py [OUT.json]

These packages pull in plotting libraries and pins of their own, so the default tests read the numbers from the file;
``INTERP_ORACLES=oracles/bin/python pytest tests/interp/test_metric_oracles.py`` recomputes them and compares.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import ckatorch.core as ckatorch
import numpy as np
import rsatoolbox
import skdim
import torch
from cka.hsic import hsic_cross
from concept_erasure import LeaceFitter
from reptrix import alpha, lidar, rankme

sys.path.insert(0, str(Path(__file__).parent))
import metric_data as data

warnings.simplefilter("ignore")
x, y = data.pair()
tx, ty = torch.from_numpy(x), torch.from_numpy(y)
grams = torch.stack([(a - a.mean(0)) @ (a - a.mean(0)).T for a in (tx, ty)])
hsic = hsic_cross(grams, grams)


def rsa(distance: str, comparison: str) -> float:
    rdms = [rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(a), method=distance) for a in (x, y)]
    return float(np.ravel(rsatoolbox.rdm.compare(*rdms, method=comparison))[0])


def erased(method: str) -> torch.Tensor:
    """x without the concept that metric_data.concept() puts on its rows; tolerances that leave nothing out."""
    fitter = LeaceFitter.fit(
        tx,
        torch.from_numpy(data.concept()),
        method=method,
        shrinkage=False,
        svd_tol=1e-6,
        constrain_cov_trace=False,
    )
    return fitter.eraser(tx)


far = {norm: [torch.from_numpy(side) for side in data.far(norm)] for norm in (300, 3000)}
decaying, views = torch.from_numpy(data.decaying()), torch.from_numpy(data.views())
values = {
    "ckatorch linear biased": float(ckatorch.cka_base(tx, ty, "linear")),
    "ckatorch linear unbiased": float(ckatorch.cka_base(tx, ty, "linear", True)),
    "ckatorch rbf": float(ckatorch.cka_base(tx, ty, "rbf", False, 1.0, "hsic")),
    "ckatorch linear unbiased, mean 300": float(ckatorch.cka_base(*far[300], "linear", True)),
    "ckatorch linear unbiased, mean 3000": float(ckatorch.cka_base(*far[3000], "linear", True)),
    "pytorch-cka unbiased": float(hsic[0, 1] / (hsic[0, 0] * hsic[1, 1]).sqrt()),
    "rsatoolbox euclidean spearman": rsa("euclidean", "spearman"),
    "rsatoolbox euclidean corr": rsa("euclidean", "corr"),
    "rsatoolbox correlation corr": rsa("correlation", "corr"),
    "skdim twonn 2": float(skdim.id.TwoNN().fit(data.cloud(2)).dimension_),
    "skdim twonn 8": float(skdim.id.TwoNN().fit(data.cloud(8)).dimension_),
    "skdim mle 8": float(skdim.id.MLE().fit(data.cloud(8)).dimension_),
    "reptrix rankme": float(rankme.get_rankme(decaying)),
    "reptrix alpha": float(alpha.get_alpha(decaying, fit_range=np.arange(10, 100))[0]),
    "concept-erasure leace distortion": float((erased("leace") - tx).square().sum(1).mean()),
    "concept-erasure leace row 0": erased("leace")[0].tolist(),
    "concept-erasure orth distortion": float((erased("orth") - tx).square().sum(1).mean()),
    "skdim mle 2": float(skdim.id.MLE().fit(data.cloud(2)).dimension_),
    "reptrix lidar": float(lidar.get_lidar(views, num_samples=30, num_augs=6)),
}
packages = ("ckatorch", "pytorch-cka", "rsatoolbox", "scikit-dimension", "reptrix", "concept-erasure")
record = {"versions": {name: version(name) for name in packages}, "values": values}
out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("metric_values.json")
out.write_text(json.dumps(record, indent=1) + "\n")
