"""Tuned lens: an affine map in front of the readout at each layer, trained so that it says what the model will say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError, StoreError
from interp.lenses.reading import LensResult, read
from interp.lenses.readout import Readout, stream_sites
from interp.metrics.baselines import Baseline, baselined, beside
from interp.models.inputs import as_tokens
from interp.showing import Shown

__all__ = ["Translators", "train_translators", "tuned_lens"]

_HEADER = "interp_translators"


class Translators(Shown):
    """h + h A + b for each site; zero A and b leave h as it is, so that a fresh tuned lens is the logit lens."""

    def __init__(
        self, sites: tuple[str, ...], weight: Tensor, bias: Tensor, *, card: dict[str, Any] | None = None
    ) -> None:
        n, d = len(sites), weight.shape[-1]
        if weight.shape != (n, d, d) or bias.shape != (n, d):
            shapes = f"{list(weight.shape)}, {list(bias.shape)}"
            raise InputError(f"{n} sites need weights [{n}, d, d] and biases [{n}, d]; got {shapes}")
        self.sites, self.weight, self.bias, self.card = sites, weight, bias, dict(card or {})

    def _facts(self) -> dict[str, Any]:
        return {"sites": list(self.sites), "weight": self.weight, "bias": self.bias, "card": self.card}

    @classmethod
    def zeros(cls, model: Any, sites: Any = None) -> Translators:
        """The translators before training: nothing is changed."""
        found = tuple(str(site) for site in stream_sites(model, sites))
        shape = (len(found), model.d_model, model.d_model)
        weight = torch.zeros(shape, device=model.device, dtype=model.dtype)
        return cls(found, weight, torch.zeros_like(weight[:, 0]))

    def __call__(
        self, index: int, stream: Float[Tensor, "*where d_model"]
    ) -> Float[Tensor, "*where d_model"]:
        """The stream of site ``index``, translated."""
        return stream + stream @ self.weight[index] + self.bias[index]

    def save(self, path: str | Path) -> Path:
        """One safetensors file with the sites and the training card in its header."""
        from safetensors.torch import save

        from interp.runs.files import write_bytes_atomic

        head = json.dumps({"sites": list(self.sites), "card": self.card})
        tensors = {
            "weight": self.weight.detach().cpu().contiguous(),
            "bias": self.bias.detach().cpu().contiguous(),
        }
        write_bytes_atomic(Path(path), save(tensors, metadata={_HEADER: head}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Translators:
        """Read :meth:`save`'s file; StoreError if it is missing, foreign or damaged."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise StoreError(f"no translators at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                head = json.loads((file.metadata() or {})[_HEADER])
                weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
            made = cls(tuple(map(str, head["sites"])), weight, bias, card=head["card"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path} is no file of translators, or it is torn: {error}") from error
        if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise StoreError(f"{path} holds weights that are not finite")
        return made


def tuned_lens(
    model: Any,
    tokens: Any,
    translators: Translators | None = None,
    *,
    baseline: Baseline = None,
    seed: int = 0,
) -> LensResult:
    """The logit lens with each site's stream translated first; with untrained translators it *is* the logit lens.

    Parameters
    ----------
    translators
        From :func:`train_translators`; None: untrained ones.
    baseline, seed
        As for :func:`interp.lenses.logit_lens`. ``"random_init"`` trains translators of its own, on the tokens given
        and with the settings of ``translators.card``.

    Returns
    -------
    LensResult
        As :func:`interp.lenses.logit_lens`.

    References
    ----------
    Belrose et al. 2023, eq. 3.
    """
    given, readout = as_tokens(model, tokens), Readout.of(model)
    maps = translators or Translators.zeros(model)
    if maps.weight.shape[-1] != model.d_model:
        raise InputError(f"the translators are {maps.weight.shape[-1]} wide, {model.name} is {model.d_model}")
    acts = model.capture(given, list(maps.sites))
    result = read(
        "tuned lens",
        lambda i, stream: readout(maps(i, stream)),
        [acts[site] for site in maps.sites],
        model.logits(given),
        tokens=given,
        sites=maps.sites,
        convention="affine translators, final norm recomputed; KL(model || lens) in nats, mean over tokens",
        provenance={"model": model.name, "training": maps.card},
    )
    if baseline is None:
        return result
    network, mixed = baselined(model, given, baseline, seed=seed)
    if baseline == "random_init" and maps.card:
        settings = {name: maps.card[name] for name in ("steps", "batch_size", "lr", "weight_decay", "seed")}
        maps = train_translators(network, mixed, list(maps.sites), **settings)
    elif baseline == "random_init":
        maps = Translators.zeros(network, list(maps.sites))
    return beside(result, tuned_lens(network, mixed, maps), baseline)


def train_translators(
    model: Any,
    tokens: Any,
    sites: Any = None,
    *,
    steps: int = 200,
    batch_size: int = 8,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Translators:
    """Translators that minimise KL(model || lens), summed over sites; the model's weights are not touched.

    Adam, with the learning rate falling linearly to 0; sequences are drawn at random by ``seed``. The card of the
    result holds the settings and the loss of the first and last steps, in nats a site. Give held-out tokens to
    :func:`tuned_lens`.

    Notes
    -----
    Cost: one forward pass a sequence drawn, and a forward and backward unembedding a site.
    """
    given, readout = as_tokens(model, tokens), Readout.of(model)
    if steps < 1 or batch_size < 1:
        raise InputError(f"steps = {steps}, batch_size = {batch_size}; both are at least 1")
    maps = Translators.zeros(model, sites)
    trained = [maps.weight.requires_grad_(), maps.bias.requires_grad_()]
    optimiser = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay)
    slope = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        part = given.select(torch.randint(len(given), (batch_size,), generator=generator))
        acts = model.capture(part, list(maps.sites))
        mask = part.mask.to(model.device)
        goal = model.logits(part)[mask].log_softmax(-1)
        with torch.enable_grad():
            loss = goal.new_zeros(())
            for i, site in enumerate(maps.sites):
                logp = readout(maps(i, acts[site][mask])).log_softmax(-1)
                loss = loss + torch.nn.functional.kl_div(logp, goal, log_target=True, reduction="batchmean")
            gradients = torch.autograd.grad(loss, trained)
        for tensor, gradient in zip(trained, gradients, strict=True):
            tensor.grad = gradient
        optimiser.step()
        slope.step()
        losses.append(float(loss.detach()) / len(maps.sites))
    card = {"steps": steps, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "seed": seed,
            "loss_first": losses[0], "loss_last": losses[-1], "model": model.name}  # fmt: skip
    return Translators(maps.sites, maps.weight.detach(), maps.bias.detach(), card=card)
