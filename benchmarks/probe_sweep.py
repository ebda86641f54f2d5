"""What does a sweep of closed-form probes cost beside one of logistic regressions? And erasing many sites?

    python benchmarks/probe_sweep.py [--sites 12] [--n 20000] [--d 768] [--classes 10] [--logistic 1] [--exponent 0.75]

Rows are Gaussian with class means, standard deviations falling as i^-exponent along rotated axes, float32. (0.75 is an
exponent of 1.5 for the variances; the residual streams of the embedded language model measure 1.1 to 2.6. 0 is white
noise, which no stream is.) Texts of 40 rows are held out whole; a split's label, control task and shuffled labels are
three fits.

Three comparisons, CPU seconds of the process on one thread, logistic regressions on the first ``--logistic`` sites and
scaled to all: one fit a site from Moments beside scikit-learn's C = 1; the sweep as users call it (LogisticProbe's
C = 0.1); and one fit with C chosen among five on a quarter of the train rows, so that nobody's penalty is a handicap.
JSON lines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import interp
from probes import LDAProbe, leace, sweep

TEXT = 40
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def sites(
    n_sites: int, n: int, d: int, c: int, exponent: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Site by site, so that all are never in memory together."""
    y = np.random.default_rng(0).integers(0, c, n)
    for i in range(n_sites):
        rng = np.random.default_rng(i + 1)
        means = rng.normal(size=(c, d)) * 0.11
        turn = np.linalg.qr(rng.normal(size=(d, d)))[0]  # a stream's axes are not its principal ones
        x = ((rng.normal(size=(n, d)) + means[y]) * np.arange(1, d + 1) ** -exponent) @ turn
        yield f"blocks.{i}.hook_resid_post", x.astype(np.float32), y


class Clock:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any], times: float = 1.0) -> Any:
        begin = time.process_time()
        done = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + (time.process_time() - begin) * times
        return done


def logistic(x: np.ndarray, y: np.ndarray, train: np.ndarray, strength: float) -> tuple[float, int]:
    """Held-out accuracy and iterations."""
    scaler = StandardScaler().fit(x[train])
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(x[train]), y[train])
    return fitted.score(scaler.transform(x[~train]), y[~train]), int(fitted.n_iter_.max())


def best_strength(x: np.ndarray, y: np.ndarray, train: np.ndarray) -> float:
    rows = np.flatnonzero(train)
    inner = np.arange(len(rows)) % 4 > 0
    scores = [logistic(x[rows], y[rows], inner, c)[0] for c in STRENGTHS]
    return STRENGTHS[int(np.argmax(scores))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("sites", 12), ("n", 20_000), ("d", 768), ("classes", 10), ("logistic", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--exponent", type=float, default=0.75)
    asked = parser.parse_args()
    with threadpool_limits(1):
        print(json.dumps(measured(asked)), flush=True)


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    clock, accuracy, found = Clock(), {}, {}
    text = np.arange(asked.n) // TEXT
    types = np.random.default_rng(9).integers(0, 500, asked.n)
    train = text % 4 > 0
    for i, (name, x, y) in enumerate(sites(asked.sites, asked.n, asked.d, asked.classes, asked.exponent)):
        options = {"groups": text, "types": types, "seeds": [0], "max_samples": None}

        def gathered(name=name, x=x, y=y) -> Any:
            moments = interp.Moments.of({name: x[train]}, labels=y[train], twin=False, block=0)
            _ = moments.sums
            return moments

        moments = clock("one pass", gathered)
        probe = clock("LDA from it", lambda m=moments, s=name: LDAProbe.from_moments(m[s]))
        eraser = clock("LEACE from it", lambda m=moments, s=name: leace(m[s]))
        found["largest |corr| after LEACE"] = max(
            found.get("largest |corr| after LEACE", 0.0), eraser.left_over
        )
        swept = clock("sweep, LDA", lambda x=x, y=y, n=name, o=options: sweep({n: x}, y, n, probe="lda", **o))
        if i >= asked.logistic:
            continue
        accuracy.setdefault("LDA", []).append(probe.score(x[~train], y[~train]))
        accuracy.setdefault("sweep, LDA", []).append(float(swept.value[0]))
        more = asked.sites / asked.logistic
        score, steps = clock("logistic, C = 1", lambda x=x, y=y: logistic(x, y, train, 1.0), more)
        accuracy.setdefault("logistic, C = 1", []).append(score)
        found["iterations"] = steps
        slow = clock("sweep, logistic", lambda x=x, y=y, n=name, o=options: sweep({n: x}, y, n, **o), more)
        accuracy.setdefault("sweep, logistic", []).append(float(slow.value[0]))
        strength = best_strength(x, y, train)
        score, _ = clock("logistic, chosen C", lambda x=x, y=y, c=strength: logistic(x, y, train, c), more)
        accuracy.setdefault("logistic, chosen C", []).append(score)
        found["chosen C"] = strength
    s = clock.seconds
    closed = s["one pass"] + s["LDA from it"]
    return {
        **vars(asked), **found,
        "cpu_seconds": {k: round(v, 2) for k, v in s.items()},
        "accuracy": {k: round(float(np.mean(v)), 4) for k, v in accuracy.items()},
        "sweep: logistic over LDA": round(s["sweep, logistic"] / s["sweep, LDA"], 1),
        "one fit: logistic C = 1 over LDA": round(s["logistic, C = 1"] / closed, 1),
        "one fit: logistic, chosen C, over LDA": round(s["logistic, chosen C"] / closed, 1),
        "LEACE over the pass it needs": round(s["LEACE from it"] / s["one pass"], 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
