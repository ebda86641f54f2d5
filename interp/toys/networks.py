"""A small transformer without norms, written as plain modules so that every intermediate tensor has a module.

The network of the grokking papers: token and position embedding, blocks of attention and a ReLU MLP that add to
one residual stream, an unembedding; no layer norm, no bias. With ``d_mlp=0`` it is attention only. Queries, keys,
values and output are separate ``nn.Linear`` modules, and scores and pattern pass through ``nn.Identity`` modules, so
that plain forward hooks reach all of them.

References
----------
Chughtai, Chan and Nanda 2023, "A Toy Model of Universality"; Nanda et al. 2023, "Progress measures for grokking".
Raffel et al. 2020, "Exploring the limits of transfer learning" (a learned bias by distance, section 2.1).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError
from interp.models import anatomy
from interp.showing import Shown

__all__ = ["Shape", "Transformer"]

POSITIONS = ("embedding", "distance")


@dataclass(frozen=True, kw_only=True, repr=False)
class Shape(Shown):
    """The sizes of a :class:`Transformer`; ``d_mlp`` 0 leaves the MLPs out.

    ``positions`` says how it knows them: ``"embedding"`` adds a learned vector to the stream; ``"distance"`` adds a
    learned number for each head and distance to the attention scores (distances from ``n_ctx - 1`` on share one), so
    that the stream holds no positions at all.
    """

    d_vocab: int
    n_ctx: int
    n_layers: int = 1
    d_model: int = 64
    n_heads: int = 4
    d_mlp: int = 256
    positions: str = "embedding"

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise InputError(f"positions must be one of {POSITIONS}, got {self.positions!r}")
        for name, value in asdict(self).items():
            if name == "positions":
                continue
            least = 0 if name == "d_mlp" else 1
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        if self.d_model % self.n_heads:
            raise InputError(f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}")

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


class Attention(nn.Module):
    """Causal self-attention with separate projections; head outputs are concatenated in front of ``o``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.d_model
        self.n_heads, self.d_head = shape.n_heads, shape.d_head
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        # [head, distance] added to the scores, where the network knows positions by distance
        by_distance = shape.positions == "distance"
        self.distance = nn.Parameter(torch.zeros(shape.n_heads, shape.n_ctx)) if by_distance else None
        self.scores = nn.Identity()
        self.pattern = nn.Identity()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The layer's write to the residual stream."""
        batch, pos, _ = x.shape
        q, k, v = (
            part(x).view(batch, pos, self.n_heads, self.d_head).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        future = torch.ones(pos, pos, dtype=torch.bool, device=x.device).triu(1)
        scores = q @ k.transpose(-1, -2) / self.d_head**0.5
        if self.distance is not None:
            place = torch.arange(pos, device=x.device)
            far = (place[:, None] - place).clamp(0, self.distance.shape[1] - 1)
            scores = scores + self.distance[:, far]
        pattern = self.pattern(self.scores(scores.masked_fill(future, -torch.inf)).softmax(-1))
        return self.o((pattern @ v).transpose(1, 2).reshape(batch, pos, -1))


class MLP(nn.Module):
    """One hidden ReLU layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.d_model, shape.d_mlp, bias=False)
        self.act = nn.ReLU()
        self.down = nn.Linear(shape.d_mlp, shape.d_model, bias=False)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The layer's write to the residual stream."""
        return self.down(self.act(self.up(x)))


class Block(nn.Module):
    """Attention, then MLP (where there is one), each added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attn = Attention(shape)
        self.mlp = MLP(shape) if shape.d_mlp else None

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the block."""
        x = x + self.attn(x)
        return x if self.mlp is None else x + self.mlp(x)


class Transformer(nn.Module):
    """A causal transformer on token ids, without norms and biases."""

    def __init__(self, shape: Shape, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.d_vocab, shape.d_model)
        self.pos_embed = nn.Embedding(shape.n_ctx, shape.d_model) if shape.positions == "embedding" else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.unembed = nn.Linear(shape.d_model, shape.d_vocab, bias=False)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith("distance"):  # every distance alike to begin with
                    continue
                fan_in = shape.d_mlp if weight.shape == (shape.d_model, shape.d_mlp) else shape.d_model
                weight.copy_(torch.randn(weight.shape, generator=generator) / fan_in**0.5)

    def forward(self, ids: Int64[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits at every position."""
        x = self.embed(ids)
        if self.pos_embed is not None:
            x = x + self.pos_embed(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)

    def anatomy(self) -> anatomy.Anatomy:
        """Where everything is, so that the canonical sites exist."""
        shape = self.shape

        def block(path: str) -> anatomy.Block:
            q, k, v, o = (anatomy.Projection(path=f"{path}.attn.{part}") for part in "qkvo")
            attn = anatomy.Attention(
                path=f"{path}.attn", q=q, k=k, v=v, o=o, d_head=shape.d_head,
                n_heads=shape.n_heads, n_kv_heads=shape.n_heads,
                scores=f"{path}.attn.scores", pattern=f"{path}.attn.pattern",
            )  # fmt: skip
            mlp = anatomy.MLP(
                path=f"{path}.mlp", up=f"{path}.mlp.up", down=f"{path}.mlp.down", act=f"{path}.mlp.act"
            )
            return anatomy.Block(path=path, attn=attn, mlp=mlp if shape.d_mlp else None, placement="none")

        return anatomy.Anatomy(
            d_model=shape.d_model,
            blocks=tuple(block(f"blocks.{layer}") for layer in range(shape.n_layers)),
            embed="embed",
            pos_embed="pos_embed" if self.pos_embed is not None else None,
            unembed="unembed",
            family="toy",
        )

    def config(self) -> dict[str, Any]:
        """The sizes, JSON-able."""
        return asdict(self.shape)
