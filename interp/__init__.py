"""interp: open up neural networks. Models, sites, capture, edits, stores, metrics, toy networks, reports.

Public names are imported when first used (PEP 562), so that ``import interp`` costs about what
``import torch`` costs and the command line none of it.
"""

from interp._version import __version__ as __version__
from interp.lazy import attach

__distribution__ = "interp-toolkit"  # how `interp doctor` tells this package from another of the same name

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        # models, capture, edits
        "load": "models.loading",
        "Model": "models.base",
        "Anatomy": "models.anatomy",
        "Site": "sites",
        "Tokens": "tokens",
        "Activations": "activations",
        "Dictionary": "dictionaries",
        "Direction": "directions",
        "Edit": "edits",
        "edit": "edits",
        "ablate": "edits",
        "add": "edits",
        "patch": "edits",
        "project": "edits",
        "replace": "edits",
        "scale": "edits",
        # stores
        "ActivationStore": "stores.store",
        "harvest": "stores.harvesting",
        "open_store": "stores.opening",
        # one pass, every second-order question
        "Moments": "moments.moments",
        # results, the main job
        "Result": "results",
        "analyze": "study.analysis",
        "compare": "study.comparing",
        "lenses": "lenses",
        "metrics": "metrics",
        "tasks": "tasks",
        "toys": "toys",
        "views": "views",
        # errors
        "CheckError": "errors",
        "InputError": "errors",
        "InterpError": "errors",
        "ModelError": "errors",
        "SiteError": "errors",
        "StoreError": "errors",
    },
)
__all__.append("__version__")
