"""Metrics: how alike two representations are, and how many dimensions one of them uses.

Every public name is imported on first use; the table says in which file each one lives.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "cka": "similarity",
        "cka_matrix": "similarity",
        "effective_rank": "spectral",
        "participation_ratio": "spectral",
        "rankme": "spectral",
    },
)
