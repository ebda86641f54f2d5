"""What does a sweep of closed-form probes cost beside scikit-learn's logistic regression? And erasing many sites?

    python benchmarks/probe_sweep.py [--sites 12] [--n 20000] [--d 768] [--classes 10] [--logistic 2]

Rows are Gaussian with a decaying, rotated spectrum and class means, float32. Logistic regression (C = 1, standardised)
is fitted on the first ``--logistic`` sites and its time scaled to all. Both are judged on the same held-out quarter.
CPU seconds of the process; JSON lines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import interp
from probes import LDAProbe, leace


def sites(n_sites: int, n: int, d: int, c: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Site by site, so that all are never in memory together."""
    y = np.random.default_rng(0).integers(0, c, n)
    for i in range(n_sites):
        rng = np.random.default_rng(i + 1)
        means = rng.normal(size=(c, d)) * 0.11
        turn = np.linalg.qr(rng.normal(size=(d, d)))[0]  # a stream's axes are not its principal ones
        x = ((rng.normal(size=(n, d)) + means[y]) * np.arange(1, d + 1) ** -0.75) @ turn
        yield f"blocks.{i}.hook_resid_post", x.astype(np.float32), y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("sites", 12), ("n", 20_000), ("d", 768), ("classes", 10), ("logistic", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    seconds = {"lda": 0.0, "logistic": 0.0, "moments": 0.0, "leace": 0.0}
    accuracy: dict[str, list[float]] = {"lda": [], "logistic": []}
    left = 0.0
    for i, (name, x, y) in enumerate(sites(asked.sites, asked.n, asked.d, asked.classes)):
        train = np.arange(asked.n) % 4 > 0
        begin = time.process_time()
        moments = interp.Moments.of({name: x[train]}, labels=y[train], twin=False, block=0)
        _ = moments.sums
        seconds["moments"] += time.process_time() - begin
        fitted = LDAProbe.from_moments(moments[name])
        seconds["lda"] += time.process_time() - begin
        accuracy["lda"].append(fitted.score(x[~train], y[~train]))
        middle = time.process_time()
        left = max(left, leace(moments[name]).left_over)
        seconds["leace"] += time.process_time() - middle
        if i < asked.logistic:
            begin = time.process_time()
            scaler = StandardScaler().fit(x[train])
            slow = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(x[train]), y[train])
            seconds["logistic"] += (time.process_time() - begin) * asked.sites / asked.logistic
            accuracy["logistic"].append(slow.score(scaler.transform(x[~train]), y[~train]))
    same = accuracy["lda"][: asked.logistic]
    print(json.dumps({
        "sites": asked.sites, "n": asked.n, "d": asked.d, "classes": asked.classes,
        "cpu_seconds": {k: round(v, 2) for k, v in seconds.items()},
        "logistic_over_lda": round(seconds["logistic"] / seconds["lda"], 1),
        "accuracy_lda": round(float(np.mean(same)), 4),
        "accuracy_logistic": round(float(np.mean(accuracy["logistic"])), 4),
        "leace_left_over": left,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
