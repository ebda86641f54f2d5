"""Networks that read numbers instead of tokens: their inputs are kept beside them, and a row's number is its token.

So a study of a plain network runs the same way as one of a language model: sites, capture, edits and stores are asked
for row 17, and the network is given the features of row 17.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from interp.errors import InputError
from interp.tokens import Tokens

__all__ = ["labels_of", "model_of_rows", "tokens_of_rows"]


def model_of_rows(net: Any, inputs: Shaped[Tensor, "sample *feature"]) -> Any:
    """A model that is asked by row numbers [batch, 1] and runs ``net`` on those rows of ``inputs``.

    ``net`` shares its parts and parameters and is itself not changed; its sites keep their names.

    Raises
    ------
    InputError
        ``net`` is no module, or there are no rows.
    """
    import interp

    module = getattr(net, "module", net) if not isinstance(net, nn.Module) else net
    if not isinstance(module, nn.Module):
        raise InputError(f"inputs= are for an nn.Module (or a model made from one), got {type(net).__name__}")
    rows = torch.as_tensor(inputs)
    if rows.ndim < 2 or len(rows) < 2:
        raise InputError(f"inputs are [sample, feature ...] with two samples or more, got {list(rows.shape)}")
    model = interp.load(_reading(module, rows))
    model.name = type(module).__name__
    return model


def _reading(module: nn.Module, rows: Tensor) -> nn.Module:
    """The module's twin whose forward pass takes row numbers; all that a hook could be put into is its own."""
    kind = type(module)

    def forward(self: nn.Module, ids: Int[Tensor, "batch one"]) -> Any:
        return kind.forward(self, self.__dict__["_rows"][ids[:, 0]])

    twin = copy.copy(module)
    for name, value in list(twin.__dict__.items()):
        if isinstance(value, dict):
            twin.__dict__[name] = copy.copy(value)
    device = next((p.device for p in module.parameters()), rows.device)
    twin.__dict__["_rows"] = rows.to(device)
    twin.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return twin


def tokens_of_rows(n: int, *, most: int, seed: int) -> Tokens:
    """Row numbers as Tokens [sample, 1]: all, or ``most`` of them drawn at random and kept in order."""
    chosen = torch.arange(n)
    if n > most:
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most].sort().values
    return Tokens.full(chosen[:, None], show=lambda i: f"row {i}")


def labels_of(labels: Any, tokens: Tokens, *, by_row: bool) -> dict[str, Tensor]:
    """Labels as per-token grids [batch, pos].

    Parameters
    ----------
    labels
        Name -> integers, [batch, pos] for tokens, [sample] or [sample, 1] for rows of inputs; negative: none.
    by_row
        Tokens are row numbers.

    Raises
    ------
    InputError
        A label of another shape, or not of whole numbers.
    """
    found = {}
    for name, given in dict(labels).items():
        grid = torch.as_tensor(given)
        if grid.is_floating_point():
            raise InputError(
                f"label {name!r} holds fractions; labels are whole numbers, negative where there is none"
            )
        if by_row:
            grid = grid.reshape(len(grid), -1)
            if grid.shape[1] != 1 or len(grid) <= int(tokens.ids.max()):
                raise InputError(
                    f"label {name!r} is {list(torch.as_tensor(given).shape)}: one number an input was expected"
                )
            grid = grid[tokens.ids[:, 0]]
        if grid.shape != tokens.ids.shape:
            raise InputError(
                f"label {name!r} is {list(grid.shape)} for tokens {list(tokens.ids.shape)}: one entry a token"
            )
        found[str(name)] = grid.long()
    return found
