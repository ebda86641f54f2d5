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
        "Eraser": "erasing",
        "ErasureAudit": "auditing",
        "LDAProbe": "discriminants",
        "LogisticProbe": "linear",
        "MassMeanProbe": "discriminants",
        "RidgeProbe": "discriminants",
        "RidgeRegressor": "discriminants",
        "SweepResult": "sweep_result",
        "amnesic": "auditing",
        "audit_erasure": "auditing",
        "auroc": "scores",
        "brier": "scores",
        "calibration_error": "scores",
        "control_labels": "controls",
        "forgetting": "auditing",
        "inlp": "nullspaces",
        "leace": "erasing",
        "mdl": "codelength",
        "oracle_leace": "oracles",
        "quadratic_leace": "oracles",
        "rece": "weight_edits",
        "rlace": "nullspaces",
        "selectivity": "sweeping",
        "sweep": "sweeping",
        "uce": "weight_edits",
    },
)
