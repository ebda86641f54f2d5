"""Networks whose mechanism is known: group operations, induction, superposition, and circuits planted by hand.

`collection.py` is the registry: it hands out everything that `interp.load` takes by name. The `train_*.py` grow the
trained ones from scratch; `planted_letters.py` and `planted_records.py` wire the planted ones.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Edge": "planted_graph",
        "Embedded": "collection",
        "Group": "groups",
        "GroupRun": "training_runs",
        "InductionRecipe": "train_induction",
        "MiniRecipe": "train_mini",
        "Perceptron": "perceptron",
        "PerceptronShape": "perceptron",
        "Planted": "planted_circuits",
        "PlantedGraph": "planted_graph",
        "Recipe": "recipes",
        "Shape": "networks",
        "Superposition": "superposition",
        "SuperpositionRecipe": "train_superposition",
        "Transformer": "networks",
        "Wiring": "wiring",
        "complexity_bias": "complexity_bias",
        "coordinate_networks": "coordinate_networks",
        "copy_loss": "repeats",
        "effective_theory": "effective_theory",
        "embedded": "collection",
        "examine": "exam",
        "feature_dimensionality": "superposition",
        "features_per_dimension": "superposition",
        "grok": "train_group",
        "groups": "groups",
        "head_scores": "repeats",
        "import_network": "imported",
        "inverse_permutation": "inverse_permutation",
        "irrep_network": "handmade",
        "language": "language",
        "lookup_network": "handmade",
        "mini_checkpoints": "train_mini",
        "names": "collection",
        "planted": "planted_circuits",
        "published": "recipes",
        "recipe_for": "recipes",
        "repeated": "repeats",
        "streaming_parity": "streaming_parity",
        "superposition_loss": "train_superposition",
        "train": "train_group",
        "train_group_network": "train_group",
        "train_induction_network": "train_induction",
        "train_mini": "train_mini",
        "train_superposition_networks": "train_superposition",
    },
)
