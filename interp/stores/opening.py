"""Finding the store that a path means: its own folder, or the folder that one or several were harvested into."""

from __future__ import annotations

from pathlib import Path

from interp.errors import StoreError
from interp.stores.store import ActivationStore

__all__ = ["open_store"]


def open_store(path: str | Path, *, partial: bool = False) -> ActivationStore:
    """The activation store in a folder, or the only one in the folders right below it.

    Parameters
    ----------
    path
        What ``harvest`` was given as ``out``, or the store's own folder.
    partial
        Open it even if the parts of some processes are missing (see ``missing_ranks``).

    Raises
    ------
    StoreError
        If there is none, if there are several (all are listed), or if it is torn or foreign.
    """
    path = Path(path)
    if not path.is_dir():
        reason = "it is a file" if path.exists() else "it does not exist"
        raise StoreError(f"no activation store at {path}: {reason}")
    if (path / "config.json").exists():
        return ActivationStore(path, partial=partial)
    found = sorted(file.parent for file in path.glob("*/config.json"))
    if not found:
        raise StoreError(f"no activation store at {path}: neither it nor a folder in it has a config.json")
    if len(found) > 1:
        listed = "\n  ".join(_described(folder) for folder in found)
        raise StoreError(f"{path} holds {len(found)} stores; open one of them:\n  {listed}")
    return ActivationStore(found[0], partial=partial)


def _described(folder: Path) -> str:
    try:
        store = ActivationStore(folder, partial=True)
    except StoreError as error:
        return f"{folder} (damaged: {error})"
    return f"{folder} ({store.n_rows} rows of {', '.join(map(str, store.sites[:3]))}, {store._layout.dtype})"
