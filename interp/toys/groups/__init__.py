"""Finite groups with everything that is known about them: tables, classes, irreps, characters, subgroups, proofs.

`group.py` is the noun, standing on `table.py`; `families.py` makes the named ones, `young.py` the irreps of the
symmetric groups, `splitting.py` those of any group from its table alone; `proving.py` checks all of it again.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Check": "proof",
        "Group": "group",
        "Irrep": "irreps",
        "LARGEST": "families",
        "Proof": "proof",
        "Subgroup": "lattice",
        "Word": "words",
    },
)
