"""Probes: what can be read linearly (or not) from a model's activations, with the controls that make it a finding.

Every public name is imported on first use; the table says in which file each one lives.
"""

from interp.lazy import attach

__distribution__ = (
    "interp-toolkit"  # `interp doctor` tells by it whether another package of this name overwrote ours
)

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Amnesia": "auditing",
        "CausalUse": "causation",
        "ConceptVectors": "concepts",
        "ContrastProbe": "contrast",
        "Disentanglement": "multitask",
        "Eraser": "erasing",
        "ErasureAudit": "auditing",
        "LDAProbe": "discriminants",
        "LogisticProbe": "linear",
        "MassMeanProbe": "discriminants",
        "MultiTaskProbe": "multitask",
        "NumberSweep": "regressing",
        "OrderProbe": "orders",
        "PrefixCurve": "prefixes",
        "ProbeDirection": "directing",
        "RidgeProbe": "discriminants",
        "RidgeRegressor": "discriminants",
        "SparseProbe": "picking",
        "StructuralProbe": "trees",
        "SweepResult": "sweep_result",
        "TreeResult": "trees",
        "ablate": "directing",
        "amnesic": "auditing",
        "audit_erasure": "auditing",
        "auroc": "scores",
        "brier": "scores",
        "by_position": "sources",
        "calibration_error": "scores",
        "causal_use": "causation",
        "ccs": "contrast",
        "circle_probe": "orders",
        "control_labels": "controls",
        "dci": "multitask",
        "direction": "directing",
        "forgetting": "auditing",
        "inlp": "nullspaces",
        "leace": "erasing",
        "mdl": "codelength",
        "net2vec": "concepts",
        "oracle_leace": "oracles",
        "ordinal_probe": "orders",
        "parents_of_depths": "trees",
        "patch_along": "directing",
        "prefix_curve": "prefixes",
        "quadratic_leace": "oracles",
        "rece": "weight_edits",
        "rlace": "nullspaces",
        "selectivity": "sweeping",
        "sparse_probe": "picking",
        "steer": "directing",
        "structural_probe": "trees",
        "sweep": "sweeping",
        "sweep_numbers": "regressing",
        "tree_distance": "trees",
        "uce": "weight_edits",
    },
)
