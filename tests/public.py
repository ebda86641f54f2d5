"""The classes that a public function hands out, found by the annotations of what is public."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import circuits
import interp
import probes
import sae
from interp.results import Result

__all__ = ["public_classes", "results"]

PUBLIC = (
    *(
        "interp",
        "probes",
        "sae",
        "circuits",
        "interp.lenses",
        "interp.metrics",
        "interp.tasks",
        "interp.toys",
    ),
    *("interp.views", "circuits.groups"),
)


@cache
def _classes() -> dict[str, list[type]]:
    """Every class of the four packages by name."""
    found: dict[str, list[type]] = {}
    for package in (interp, probes, sae, circuits):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if info.name.endswith(("__main__", ".kernels")):
                continue
            for name, one in vars(importlib.import_module(info.name)).items():
                if inspect.isclass(one) and one.__module__ == info.name:
                    found.setdefault(name, []).append(one)
    return found


def _returned(function: Any) -> Iterator[type]:
    """The classes of ours that a function's annotation names, as its module knows those names."""
    said = getattr(function, "__annotations__", {}).get("return", "")
    text = said if isinstance(said, str) else getattr(said, "__name__", str(said))
    home = importlib.import_module(function.__module__)
    imported = re.findall(r"from ([\w.]+) import (?:\(\s*)?([\w, \n]+)", inspect.getsource(home))
    places = {name: place for place, names in imported for name in re.findall(r"\w+", names)}
    for name in re.findall(r"[A-Za-z_]\w*", text):
        known = _classes().get(name, [])
        yield from [
            one for one in known if one.__module__ == home.__name__ or _from(one, places.get(name, ""))
        ]


def _from(one: type, place: str) -> bool:
    return bool(place) and (one.__module__ == place or one.__module__.startswith(f"{place}."))


@cache
def public_classes() -> dict[type, str]:
    """Class -> the public thing that is it or hands it out; exceptions, protocols and bare modules left out."""
    found: dict[type, str] = {}

    def meet(one: type, why: str) -> None:
        if one in found or issubclass(one, BaseException) or getattr(one, "_is_protocol", False):
            return
        found[one] = why
        for name, member in inspect.getmembers(one):
            member = member.fget if isinstance(member, property) else member
            ours = (getattr(member, "__module__", None) or "").split(".")[0] in (
                "interp",
                "probes",
                "sae",
                "circuits",
            )
            if not name.startswith("_") and callable(member) and ours and not inspect.isclass(member):
                for other in _returned(member):
                    meet(other, f"{one.__name__}.{name}")

    for place in PUBLIC:
        module = importlib.import_module(place)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                meet(value, f"{place}.{name}")
            elif callable(value):
                for one in _returned(value):
                    meet(one, f"{place}.{name}")
    return found


def results() -> list[type[Result]]:
    """Result and every subclass of it, nested ones too."""
    _classes()
    kinds, waiting = [], [Result]
    while waiting:
        one = waiting.pop()
        # slots=True makes each class twice; the one that its module holds is the real one
        if getattr(importlib.import_module(one.__module__), one.__name__, None) is one:
            kinds.append(one)
        waiting += one.__subclasses__()
    return sorted(set(kinds), key=lambda one: (one.__module__, one.__name__))
