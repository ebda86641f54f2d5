"""Sparse autoencoders: train, load, save, evaluate and look at dictionaries of activations.

Every public name is imported on first use; the table says in which file each one lives.
"""

from interp.lazy import attach

__distribution__ = (
    "interp-toolkit"  # `interp doctor` tells by it whether another package of this name overwrote ours
)

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Coder": "coder",
        "Evaluation": "evaluation",
        "Run": "training",
        "TrainConfig": "config",
        "evaluate": "evaluation",
        "load": "storage",
        "match_dictionary": "evaluation",
        "save": "storage",
        "train": "training",
    },
)
