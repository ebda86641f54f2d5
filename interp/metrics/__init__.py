"""Metrics: how alike two representations are, how many dimensions one uses, and what shape it has.

Every public name is imported on first use; the table says in which file each one lives. Each returns a
:class:`interp.Result`: the value with its n, n/d, convention, uncertainty and chance level, or the reason why it is
missing. Functions of one or two representations take rows [sample, d], many of them a site of a
:class:`interp.Moments` as well; ``layer_profile`` and ``layer_similarity`` take a model.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        # two representations
        "angular_distance": "subspaces",
        "cca": "subspaces",
        "cka": "similarity",
        "cka_matrix": "similarity",
        "cka_rbf": "kernels",
        "cknna": "neighbours",
        "co_clusters": "matching",
        "linear_predictivity": "predictivity",
        "match_neurons": "matching",
        "mutual_knn": "neighbours",
        "procrustes": "subspaces",
        "pwcca": "subspaces",
        "relative_representation": "predictivity",
        "rsa": "dissimilarity",
        "similarity_matrix": "grids",
        "sparse_prediction": "matching",
        "svcca": "subspaces",
        "zero_shot_stitch": "predictivity",
        # two networks
        "loss_barrier": "rebasin",
        "match_activations": "rebasin",
        "match_weights": "rebasin",
        "mlp_units": "rebasin",
        "permuted": "rebasin",
        # spectrum and entropy
        "alpha_req": "spectral",
        "dataset_entropy": "entropies",
        "dime": "views",
        "effective_rank": "spectral",
        "infonce": "views",
        "lidar": "views",
        "nesum": "spectral",
        "participation_ratio": "spectral",
        "prompt_entropy": "entropies",
        "rankme": "spectral",
        "renyi_entropy": "entropies",
        "stable_rank": "spectral",
        "vne_regulariser": "entropies",
        "von_neumann_entropy": "entropies",
        # geometry
        "class_distance_variance": "collapse",
        "curvature": "geometry",
        "cyclic_order": "orders",
        "feature_variance_share": "structure",
        "find_circle": "structure",
        "fourier_concentration": "structure",
        "intra_sentence_similarity": "geometry",
        "linear_order": "orders",
        "max_explainable_variance": "geometry",
        "mean_cosine": "geometry",
        "mixture_index": "structure",
        "mle_dimension": "dimension",
        "neural_collapse": "collapse",
        "scatter_ratio": "collapse",
        "parallelogram_rqi": "structure",
        "self_similarity": "geometry",
        "separability": "structure",
        "token_homogeneity": "geometry",
        "two_nn": "dimension",
        # whole models
        "last_token_gap": "glasses",
        "layer_profile": "profiles",
        "layer_similarity": "profiles",
        "random_init": "baselines",
        "shuffled_tokens": "baselines",
        "training_phases": "training",
        "training_profile": "training",
        # what is declared
        "INVARIANCES": "declared",
        "invariances": "declared",
    },
)
