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
        "Agreement": "agreement",
        "CircuitDifference": "telling.comparing",
        "CircuitReport": "telling.reporting",
        "Calibration": "agreement",
        "Faithfulness": "evaluation",
        "Graph": "graph",
        "Layout": "layout",
        "PatchResult": "effects",
        "PathEffect": "paths",
        "Stability": "agreement",
        "acdc": "pruning",
        "attribute": "attribution",
        "calibrate": "agreement",
        "compare": "agreement",
        "diff": "telling.comparing",
        "discrete_coder": "autoencoder",
        "edge_effects": "exact",
        "evaluate": "evaluation",
        "groups": "groups",
        "learn_mask": "masks",
        "minimality": "evaluation",
        "patch_sweep": "patching",
        "path_patch": "paths",
        "report": "telling.reporting",
        "sae_circuit": "discrete",
        "stability": "agreement",
        "verify": "telling.checking",
    },
)
