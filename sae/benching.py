"""A coder as the object that SAEBench's evaluations take for a custom SAE (checked against SAEBench 0.6.0)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import InputError
from interp.showing import Shown
from interp.sites import Site
from sae.coder import Coder

__all__ = ["BenchConfig", "BenchSAE", "saebench"]


@dataclass
class BenchConfig:
    """The fields that SAEBench reads from ``sae.cfg``; it writes some of them, so this one is not frozen."""

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    context_size: int | None = None
    hook_head_index: int | None = None
    architecture: str = ""
    apply_b_dec_to_input: bool | None = None
    finetuning_scaling_factor: bool | None = None
    activation_fn_str: str = ""
    activation_fn_kwargs: dict[str, Any] = field(default_factory=dict)
    prepend_bos: bool = True
    normalize_activations: str = "none"
    dtype: str = ""
    device: str = ""
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    dataset_path: str = ""
    dataset_trust_remote_code: bool = True
    seqpos_slice: tuple[int | None, ...] = (None,)
    training_tokens: int = -100_000
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class BenchSAE(Shown, nn.Module):
    """The contract: ``W_enc``, ``W_dec`` with rows of unit norm, ``b_enc``, ``b_dec``, ``encode``, ``decode``,
    ``forward``, ``cfg``, ``device``, ``dtype``, ``to``.

    Codes are multiplied by the norms of the coder's directions, so that every reconstruction is the coder's own.
    """

    norm: Tensor

    def __init__(self, coder: Coder, cfg: BenchConfig) -> None:
        super().__init__()
        norm = coder.W_dec.detach().norm(dim=1)
        self.coder = coder.alike()
        self.coder.load_state_dict(coder.state_dict())
        unit = coder.W_dec.detach() / torch.where(norm > 0, norm, 1.0)[:, None]
        unit[norm == 0, 0] = 1.0  # such a latent writes nothing: its codes are multiplied by 0
        tied = coder.rule.tied
        self.W_dec = nn.Parameter(unit)
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone() if tied else coder.W_enc.detach() * norm)
        self.b_enc = nn.Parameter(torch.zeros_like(norm) if tied else coder.b_enc.detach() * norm)
        self.b_dec = nn.Parameter(coder.b_dec.detach().clone())
        self.register_buffer("norm", norm)
        self.cfg = cfg
        self.device, self.dtype = self.b_dec.device, self.b_dec.dtype

    def _facts(self) -> dict[str, Any]:
        said = {
            "coder": f"{self.coder.kind} {self.coder.d_in} -> {self.coder.d_sae}",
            "site": self.cfg.hook_name,
        }
        return said | {"model": self.cfg.model_name, "dtype": str(self.dtype).removeprefix("torch.")}

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch latent"]:
        """Codes, in units of the data."""
        return (self.coder.encode(x) * self.norm).to(self.dtype)

    def decode(self, codes: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch d_in"]:
        """Rows."""
        return codes.to(self.W_dec.dtype) @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Rows as the coder writes them."""
        return self.decode(self.encode(x))

    def to(self, *args: Any, **kwargs: Any) -> BenchSAE:
        """Move, and say so in ``device``, ``dtype`` and ``cfg``, which SAEBench reads."""
        super().to(*args, **kwargs)
        self.device, self.dtype = self.b_dec.device, self.b_dec.dtype
        self.cfg.device, self.cfg.dtype = str(self.device), str(self.dtype).removeprefix("torch.")
        return self

    @torch.no_grad()
    def check_decoder_norms(self) -> bool:
        """Whether every direction has unit norm, to 1e-5 (1e-2 in 16 bits)."""
        tolerance = 1e-2 if self.dtype in (torch.bfloat16, torch.float16) else 1e-5
        return bool(((self.W_dec.float().norm(dim=1) - 1).abs() <= tolerance).all())


def saebench(
    coder: Coder,
    *,
    model_name: str,
    site: str | Site,
    context_size: int = 128,
    training_tokens: int = -100_000,
) -> BenchSAE:
    """``coder`` as a custom SAE for SAEBench; a copy, so that nothing it does changes the coder.

    Parameters
    ----------
    model_name
        As TransformerLens knows it.
    site
        Where the coder reads; its name becomes ``hook_name``, its layer ``hook_layer``.

    Raises
    ------
    InputError
        No autoencoder (a transcoder or crosscoder), or a site without a layer.
    """
    if coder.wiring != "sae":
        raise InputError(f"SAEBench takes autoencoders; this coder is a {coder.wiring}")
    place = Site.parse(site)
    if place.layer is None:
        raise InputError(f"{place} has no layer; SAEBench asks which layer a coder reads")
    cfg = BenchConfig(
        model_name=model_name,
        d_in=coder.d_in,
        d_sae=coder.d_sae,
        hook_layer=place.layer,
        hook_name=str(place.whole),
        context_size=context_size,
        hook_head_index=place.head,
        architecture=coder.kind,
        apply_b_dec_to_input=coder.centred,
        activation_fn_str=coder.kind,
        activation_fn_kwargs={"k": coder.k},
        training_tokens=training_tokens,
    )
    return BenchSAE(coder, cfg).to(device=coder.b_dec.device, dtype=coder.b_dec.dtype)
