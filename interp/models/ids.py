"""Are these token ids ones that a model takes?"""

from __future__ import annotations

from torch import Tensor

from interp.errors import InputError
from interp.models.network import Network

__all__ = ["check_ids", "explain_ids"]


def check_ids(model: Network, ids: Tensor) -> None:
    """Raise InputError for a prompt longer than the context or ids outside the vocabulary.

    On the CPU the embedding itself refuses a foreign id, so there the vocabulary is looked at only
    once that has happened (:func:`explain_ids`): three reductions are a tenth of a small network's pass.
    """
    n_ctx = model.n_ctx
    if ids.numel() == 0:
        raise InputError(f"there are no tokens: ids have shape {list(ids.shape)}")
    if n_ctx is not None and ids.shape[1] > n_ctx:
        raise InputError(
            f"the prompt has {ids.shape[1]} tokens; {model.name} takes at most {n_ctx} (truncate=True cuts texts)"
        )
    if ids.device.type != "cpu" or model.device.type != "cpu":
        explain_ids(model, ids)


def explain_ids(model: Network, ids: Tensor) -> None:
    """Raise InputError naming the first id outside the vocabulary, if there is one."""
    vocab = model.d_vocab
    if vocab is None:
        return
    outside = (ids < 0) | (ids >= vocab)
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise InputError(
            f"token id {int(ids[row, column])} at row {row}, position {column}: {model.name} has {vocab} token ids, "
            f"0-{vocab - 1} (was the text split by another model's tokenizer?)"
        )
