"""In what precision a step's dense products are made; weights, sums, gradients and optimiser stay float32 in each.

``tf32`` rounds what a GPU multiplies to 10 bits of mantissa, ``bf16`` rounds rows and weights to 7 before they are
multiplied. Nothing outside the step is changed: a switch of torch's that has to be set is set back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from interp.errors import InputError

__all__ = ["PRECISIONS", "ask", "product", "products"]

PRECISIONS = ("float32", "tf32", "bf16")


def ask(precision: str, device: torch.device) -> None:
    """Whether ``device`` can do it.

    Raises
    ------
    InputError
        It cannot; the message says what can.
    """
    cuda = device.type == "cuda"
    if precision == "tf32" and not (cuda and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise InputError(
            f"precision='tf32' needs an NVIDIA GPU of compute capability 8.0 or more; this training runs on {device}: "
            "say precision='float32' or 'bf16'"
        )
    able = device.type == "cpu" or (cuda and torch.cuda.is_bf16_supported(including_emulation=False))
    if precision == "bf16" and not able:
        raise InputError(
            f"precision='bf16' needs a CPU or a GPU that multiplies bfloat16; {device} does not: "
            "say precision='float32'"
        )


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """float32 products on a GPU are float32, or TF32 where that is asked for, whatever the process is set to."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = "none"  # what it inherits, if that is what it was
        if matmul.fp32_precision != before:
            matmul.fp32_precision = before


def product(a: Tensor, b: Tensor, precision: str) -> Tensor:
    """a @ b, as float32 if it is made in bfloat16; its gradients are made the same way."""
    return (a.bfloat16() @ b.bfloat16()).float() if precision == "bf16" else a @ b
