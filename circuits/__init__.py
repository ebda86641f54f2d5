"""Circuits: which parts of a model, joined how, do a task, and how faithfully.

Every public name is imported on first use; the table says in which file each one lives.
"""

from interp.lazy import attach

__distribution__ = (
    "interp-toolkit"  # `interp doctor` tells by it whether another package of this name overwrote ours
)

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "PatchResult": "effects",
        "groups": "groups",
        "patch_sweep": "patching",
    },
)
