"""What training leaves: the network, its card, and its weights along the way; on disk and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp.errors import CheckError, InputError, StoreError
from interp.showing import Shown
from interp.toys.groups import Group
from interp.toys.networks import Shape, Transformer
from interp.toys.perceptron import Perceptron, PerceptronShape

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["CURVE", "Checkpoint", "GroupRun", "network_of", "untrained"]

CURVE = ("epoch", "train_accuracy", "test_accuracy", "train_loss", "test_loss")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Checkpoint(Shown):
    """The weights after an epoch."""

    epoch: int
    state: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def of(cls, epoch: int, module: nn.Module) -> Checkpoint:
        """A copy of the weights of ``module``."""
        return cls(epoch=epoch, state={k: v.detach().clone() for k, v in module.state_dict().items()})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GroupRun(Shown):
    """A trained group network and how it came to be."""

    module: Transformer | Perceptron = field(repr=False)
    card: Mapping[str, Any] = field(repr=False)
    checkpoints: tuple[Checkpoint, ...] = field(repr=False)
    group: Group

    def at(self, checkpoint: Checkpoint) -> Transformer | Perceptron:
        """A copy of the network as it was then."""
        module = copy.deepcopy(self.module)
        module.load_state_dict(dict(checkpoint.state))
        return module

    def to_frame(self) -> pd.DataFrame:
        """The curve: epoch, accuracies, losses in nats."""
        import pandas as pd

        return pd.DataFrame(self.card["curve"], columns=list(CURVE))

    def plot(self) -> go.Figure:
        """Accuracy on seen and unseen pairs over training."""
        from interp.plots import Series, lines

        frame = self.to_frame()
        return lines(
            frame["epoch"].tolist(),
            [
                Series(
                    name=f"{part} accuracy (n = {self.card[f'n_{part}']})",
                    y=frame[f"{part}_accuracy"].to_numpy(),
                )
                for part in ("train", "test")
            ],
            title=f"{self.group.name}: grokking {self.card['word']}, seed {self.card['seed']}",
            x_title="epoch",
            y_title="accuracy",
            y_span=(-0.02, 1.02),
        )

    def write_network(self, folder: str | Path, *, name: str) -> None:
        """Write ``<name>.safetensors`` and ``<name>.json`` (the card) into ``folder``."""
        from safetensors.torch import save

        from interp.runs.files import ensure_folder, write_bytes_atomic, write_json_atomic

        folder = ensure_folder(folder)
        write_bytes_atomic(folder / f"{name}.safetensors", save(self.module.state_dict()))
        write_json_atomic(folder / f"{name}.json", dict(self.card))

    def save(self, folder: str | Path) -> Path:
        """Write network, card and checkpoints; :meth:`load` reads them back."""
        from safetensors.torch import save

        from interp.runs.files import ensure_folder, write_bytes_atomic

        folder = ensure_folder(folder)
        for checkpoint in self.checkpoints:
            write_bytes_atomic(
                folder / f"epoch-{checkpoint.epoch:06d}.safetensors", save(dict(checkpoint.state))
            )
        self.write_network(folder, name="final")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> GroupRun:
        """Read a run back.

        Raises
        ------
        StoreError
            The folder holds no run.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        if not (folder / "final.json").is_file():
            raise StoreError(f"{folder} holds no run of a group network")
        card = json.loads((folder / "final.json").read_text("utf-8"))
        kept = [
            Checkpoint(epoch=int(path.stem.removeprefix("epoch-")), state=load_file(path))
            for path in sorted(folder.glob("epoch-*.safetensors"))
        ]
        module = network_of(card, load_file(folder / "final.safetensors"))
        return cls(module=module, card=card, checkpoints=tuple(kept), group=Group(card["group"]))


def untrained(card: Mapping[str, Any]) -> Transformer | Perceptron:
    """The network that a card describes, before its weights are loaded.

    Raises
    ------
    InputError
        The card names no network that is known.
    """
    kind = card.get("network", "transformer")
    if kind not in ("transformer", "mlp"):
        raise InputError(f"a card names a network {kind!r}; 'transformer' and 'mlp' are known")
    if kind == "mlp":
        return Perceptron(PerceptronShape(**card["shape"]))
    return Transformer(Shape(**card["shape"]))


def network_of(card: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Transformer | Perceptron:
    """The network that a card describes, with its weights, in evaluation mode.

    Raises
    ------
    InputError
        The card names no network that is known.
    CheckError
        The weights do not fit.
    """
    module = untrained(card)
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckError(f"the weights do not fit their card: {error}") from error
    return module.eval()
