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
        "Eraser": "erasing",
        "ErasureAudit": "auditing",
        "LDAProbe": "discriminants",
        "LogisticProbe": "linear",
        "MassMeanProbe": "discriminants",
        "ProbeDirection": "directing",
        "RidgeProbe": "discriminants",
        "RidgeRegressor": "discriminants",
        "SweepResult": "sweep_result",
        "ablate": "directing",
        "amnesic": "auditing",
        "audit_erasure": "auditing",
        "auroc": "scores",
        "brier": "scores",
        "calibration_error": "scores",
        "causal_use": "causation",
        "control_labels": "controls",
        "direction": "directing",
        "forgetting": "auditing",
        "inlp": "nullspaces",
        "leace": "erasing",
        "mdl": "codelength",
        "oracle_leace": "oracles",
        "patch_along": "directing",
        "quadratic_leace": "oracles",
        "rece": "weight_edits",
        "rlace": "nullspaces",
        "selectivity": "sweeping",
        "steer": "directing",
        "sweep": "sweeping",
        "uce": "weight_edits",
    },
)
