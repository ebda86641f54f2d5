"""Lazy packages (PEP 562): which file holds each public name, and nothing imported until it is used.

A package's `__init__` says `__getattr__, __dir__, __all__ = attach(__name__, {"capture_all": "capture"})`.
`interp --help` and `import probes` therefore cost neither torch nor numpy. Read next: any package's `__init__.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def attach(
    module_name: str, table: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a lazy package.

    Parameters
    ----------
    module_name
        The package's `__name__`.
    table
        Public name -> where it is, relative to the package: `"submodule"` (the attribute of the same name inside
        it; dots allowed), `"submodule:attribute"` (under another name), or the public name itself, which stands
        for that submodule or subpackage.

    Returns
    -------
    tuple
        `(__getattr__, __dir__, __all__)`, to be assigned at the package's top level.

    Raises
    ------
    AttributeError
        From the returned `__getattr__`, for a name that is not in the table, with the nearest public names.
    """
    public = sorted(table)

    def resolve(name: str) -> Any:
        place = table.get(name)
        if place is None:
            raise AttributeError(_unknown(module_name, name, public))
        path, _, attribute = place.partition(":")
        module = import_module(f"{module_name}.{path}")
        value = module if path == name else getattr(module, attribute or name)
        setattr(sys.modules[module_name], name, value)  # the next access does not come here
        return value

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[module_name]), *public})

    return resolve, listing, public


def _unknown(module_name: str, name: str, public: list[str]) -> str:
    from interp.errors import nearest

    hint = "" if name.startswith("_") else nearest(name, public)
    return f"module {module_name!r} has no attribute {name!r}{hint}"
