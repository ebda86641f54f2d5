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
        "ablate": "steering",
        "Absorption": "probing",
        "absorption": "probing",
        "chat_endpoint": "chat",
        "chat_model": "chat",
        "circle_test": "circles",
        "CircleTest": "circles",
        "clamp": "steering",
        "Coder": "coder",
        "Codes": "codes",
        "detection_score": "explaining",
        "Evaluation": "evaluation",
        "explain": "explaining",
        "Explanation": "explaining",
        "fuzzing_score": "explaining",
        "Run": "training",
        "Through": "downstream",
        "TrainConfig": "config",
        "compare": "comparing",
        "Comparison": "comparing",
        "Dashboard": "gallery.dashboarding",
        "dashboard": "gallery.dashboarding",
        "effect_curve": "steering",
        "EffectCurve": "steering",
        "encode": "codes",
        "evaluate": "evaluation",
        "group_shape": "clusters",
        "GroupShape": "clusters",
        "label_latents": "labels",
        "LabelTable": "labels",
        "latent_groups": "clusters",
        "load": "storage",
        "loss_recovered": "splicing",
        "LossRecovered": "splicing",
        "match_dictionary": "truth",
        "model_rows": "streaming",
        "Recovery": "truth",
        "recovery": "truth",
        "rotate": "turning",
        "rotation_test": "turning",
        "RotationTest": "turning",
        "saebench": "benching",
        "sparse_probing": "probing",
        "splice": "splicing",
        "spurious_removal": "removal",
        "targeted_perturbation": "removal",
        "stability": "comparing",
        "steer": "steering",
        "to_tensorboard": "watching",
        "to_wandb": "watching",
        "train": "training",
        "written_by": "clusters",
    },
)


def save(coder, path, *, format="native", provenance=None):
    """Write ``coder`` to the folder ``path``; see :func:`sae.storage.save`.

    Defined here and not looked up lazily: importing nnsight mounts a method ``save`` on every object of the
    process, this module included, and ``__getattr__`` would no longer be asked.
    """
    from sae.storage import save as write

    return write(coder, path, format=format, provenance=provenance)


__all__.append("save")
