"""Toy networks whose algorithm is known: groups, a small transformer, and the trained networks that ship along.

`train_group.py` grows one from scratch; `collection.py` hands out the shipped ones, which `interp.load` takes by name.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Embedded": "collection",
        "Group": "groups",
        "Recipe": "train_group",
        "Shape": "networks",
        "Transformer": "networks",
        "embedded": "collection",
        "names": "collection",
        "train_group_network": "train_group",
    },
)
