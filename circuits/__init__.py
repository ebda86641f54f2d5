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
        "Alignment": "alignment",
        "Calibration": "agreement",
        "CircuitDifference": "telling.comparing",
        "CircuitReport": "telling.reporting",
        "Faithfulness": "evaluation",
        "FeatureFaithfulness": "features.faithful",
        "FeatureGraph": "features.graph",
        "Graph": "graph",
        "Layout": "layout",
        "Neurons": "features.neurons",
        "NodeScores": "nodes",
        "PatchResult": "effects",
        "PathEffect": "paths",
        "Scrubbed": "scrubbing",
        "Stability": "agreement",
        "acdc": "pruning",
        "align": "alignment",
        "attribute": "attribution",
        "calibrate": "agreement",
        "compare": "agreement",
        "composition": "atlas.composing",
        "diff": "telling.comparing",
        "directions": "atlas.singular",
        "discrete_coder": "autoencoder",
        "edge_effects": "exact",
        "evaluate": "evaluation",
        "feature_circuit": "features.finding",
        "feature_faithfulness": "features.faithful",
        "feature_report": "features.reporting",
        "groups": "groups",
        "head_atlas": "atlas.heads",
        "learn_mask": "masks",
        "minimality": "evaluation",
        "neuron_census": "atlas.neurons",
        "patch_sweep": "patching",
        "node_scores": "nodes",
        "path_patch": "paths",
        "report": "telling.reporting",
        "sae_circuit": "discrete",
        "scrub": "scrubbing",
        "shrink": "shrinking",
        "second_order": "atlas.through_heads",
        "stability": "agreement",
        "token_flow": "atlas.flow",
        "verify": "telling.checking",
    },
)
