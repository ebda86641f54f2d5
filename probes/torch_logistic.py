"""Logistic regression by torch's L-BFGS in float64: scikit-learn's objective, on any device."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["minimise"]


def minimise(
    features: np.ndarray,
    codes: np.ndarray,
    *,
    penalty: float,
    weights: np.ndarray,
    max_iter: int,
    tol: float,
    device,
) -> tuple[np.ndarray, np.ndarray, int, bool]:
    """Weights, bias, iterations, and whether the largest gradient entry came below ``tol`` (scikit-learn's rule).

    Minimises sum_i w_i CE_i / sum w + penalty |W|^2 / (2 sum w); two classes have one row of weights.
    """
    x = torch.as_tensor(features, dtype=torch.float64, device=device)
    label = torch.as_tensor(codes, device=device)
    each = torch.as_tensor(weights, dtype=torch.float64, device=device)
    n_rows = 1 if int(label.max()) == 1 else int(label.max()) + 1
    total = each.sum()
    flat = torch.zeros(n_rows, x.shape[1] + 1, dtype=torch.float64, device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [flat], max_iter=max_iter, max_eval=4 * max_iter, tolerance_grad=tol, tolerance_change=0.0,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scores = x @ flat[:, :-1].T + flat[:, -1]
        if n_rows == 1:
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        fit = (torch.nn.functional.cross_entropy(scores, label, reduction="none") * each).sum()
        value = (fit + penalty / 2 * flat[:, :-1].square().sum()) / total
        value.backward()
        return value

    optimizer.step(loss)
    loss()
    assert flat.grad is not None
    steps = int(optimizer.state[flat]["n_iter"])
    solved = flat.detach().cpu().numpy()
    return solved[:, :-1], solved[:, -1], max(1, steps), bool(flat.grad.abs().max() <= 10 * tol)
