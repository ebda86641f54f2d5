"""Networks whose mechanism is known: group operations, induction, superposition, and circuits planted by hand.

`collection.py` is the registry: it hands out everything that `interp.load` takes by name. The `train_*.py` grow the
trained ones from scratch; `planted_designs.py` wires the planted ones.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Edge": "planted_graph",
        "Embedded": "collection",
        "Group": "groups",
        "InductionRecipe": "train_induction",
        "MiniRecipe": "train_mini",
        "Planted": "planted_circuits",
        "PlantedGraph": "planted_graph",
        "Recipe": "recipes",
        "Shape": "networks",
        "Superposition": "superposition",
        "SuperpositionRecipe": "train_superposition",
        "Transformer": "networks",
        "Wiring": "wiring",
        "copy_loss": "repeats",
        "embedded": "collection",
        "examine": "exam",
        "feature_dimensionality": "superposition",
        "features_per_dimension": "superposition",
        "head_scores": "repeats",
        "language": "language",
        "mini_checkpoints": "train_mini",
        "streaming_parity": "streaming_parity",
        "inverse_permutation": "inverse_permutation",
        "effective_theory": "effective_theory",
        "coordinate_networks": "coordinate_networks",
        "complexity_bias": "complexity_bias",
        "import_network": "imported",
        "irrep_network": "handmade",
        "lookup_network": "handmade",
        "names": "collection",
        "planted": "planted_circuits",
        "repeated": "repeats",
        "superposition_loss": "train_superposition",
        "GroupRun": "training_runs",
        "Perceptron": "perceptron",
        "PerceptronShape": "perceptron",
        "grok": "train_group",
        "groups": "groups",
        "published": "recipes",
        "recipe_for": "recipes",
        "train": "train_group",
        "train_group_network": "train_group",
        "train_mini": "train_mini",
        "train_induction_network": "train_induction",
        "train_superposition_networks": "train_superposition",
    },
)
