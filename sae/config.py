"""What a training run is asked to do: a frozen value that only raises and never rewrites itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from interp.errors import InputError, nearest
from interp.showing import Shown

__all__ = ["KINDS", "TrainConfig"]

KINDS = (
    "topk",
    "abstopk",
    "batchtopk",
    "matryoshka",
    "groupmax",
    "relu",
    "panneal",
    "jumprelu",
    "gated",
    "pursuit",
    "codebook",
)
_CHOICES = {
    "kind": KINDS,
    "wiring": ("sae", "transcoder", "skip", "crosscoder", "cross-layer"),
    "optimizer": ("adam", "signum", "schedule-free"),
    "norm": ("decoder", "plain"),
    "penalty": ("kind", "tanh"),
    "decoder": ("unit", "free"),
    "center": ("mean", "median"),
    "screen": ("auto", "always", "never"),
    "end_loss": ("kl", "ce"),
    "precision": ("float32", "tf32", "bf16"),
}
_FEW = ("topk", "abstopk", "batchtopk", "matryoshka", "groupmax")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrainConfig(Shown):
    """How to train a sparse autoencoder or one of its kin; what is saved with the weights is exactly this.

    Units: rows are scaled so that their coordinates have unit variance on average (folded away in what is saved), and
    the loss is squared error per coordinate plus penalties a row over the width.
    """

    kind: str = "topk"
    """The sparsity rule: ``KINDS``."""
    d_sae: int
    """Latents."""
    k: int = 32
    """Codes kept a row; for kinds that choose for themselves, what their baselines are given."""
    steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 1024
    """Rows a step, over all processes; every pass over the data draws a new order."""
    lr: float = 0.0
    """Peak rate; 0: what :meth:`peak` makes of width and steps."""
    warmup: float = 0.05
    """Share of the steps over which the rate rises from 0."""
    decay: float = 0.3
    """Share of the steps at the end over which it falls to 0."""
    seed: int = 0
    """Of the initial dictionary and of the order of rows."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 keeps only the last. Needs ``out``."""
    log_every: int = 10
    """Steps between metric lines."""
    wiring: Literal["sae", "transcoder", "skip", "crosscoder", "cross-layer"] = "sae"
    """What is read and written; see ``wiring.py``."""
    n_sites: int = 1
    """Sites side by side in a row (crosscoder, cross-layer)."""
    optimizer: Literal["adam", "signum", "schedule-free"] = "adam"
    """See ``optimisers.py``."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of Adam; signum and schedule-free use the first."""
    clip: float = 0.0
    """Largest norm of the whole gradient; 0 clips nothing."""
    decoder: Literal["unit", "free"] = "unit"
    """Directions of unit norm with the gradient along themselves taken out, or free ones, brought to unit norm at the
    end by scaling their codes."""
    center: Literal["mean", "median"] = "mean"
    """What is taken off the rows, and put back into b_dec at the end: their mean or geometric median."""
    encoder_scale: float = 0.5
    """Length of the encoder's rows at the start, beside the decoder's 1."""
    sparsity: float = 1.0
    """Weight of the penalty (ReLU, p-anneal, JumpReLU, gated)."""
    sparsity_warmup: float = 0.1
    """Share of the steps over which that weight rises from 0."""
    penalty: Literal["kind", "tanh"] = "kind"
    """L1 for ReLU and gated, L^p for p-anneal, L0 for JumpReLU; or the sum of tanh(slope z |d|) for any of them."""
    norm: Literal["decoder", "plain"] = "decoder"
    """Whether the penalty weighs a code by the length of its direction."""
    tanh_slope: float = 4.0
    p_end: float = 0.2
    """Exponent at the end of p-annealing; it starts at 1."""
    bandwidth: float = 0.05
    """Width of JumpReLU's kernel."""
    prefixes: tuple[int, ...] = ()
    """Matryoshka: widths of the nested dictionaries, the last d_sae; empty: d_sae / 16, / 8, / 4, / 2, and all."""
    flops: float = 0.0
    """Weight of sum over latents of (mean |code|)^2, which evens out how much latents are used (Paria et al. 2020)."""
    auxk: float = 1 / 4
    """Weight of the dead latents' loss (TopK family)."""
    k_aux: int = 0
    """Dead latents used a row there; 0: half the width."""
    dead_after: int = 0
    """Rows without firing after which a latent is dead; 0: those in which an average latent fires 64 times, or a
    hundredth of the run if that is more, but at most a tenth of the run."""
    resample_every: int = 0
    """Steps between resamplings of dead latents; 0: never."""
    end_to_end: float = 0.0
    """Weight of the loss of a model that reads on from what the coder wrote, nats a token; see ``downstream.py``. Needs
    ``through`` in :func:`sae.train`."""
    end_loss: Literal["kl", "ce"] = "kl"
    """From what the model says by itself, or of the next token."""
    screen: Literal["auto", "always", "never"] = "auto"
    """Whether a bfloat16 product finds the candidates of the TopK family, whose values are then computed in float32:
    ``"auto"`` where the processor has such products and the sizes repay it. The codes are the same; see
    ``screening.py``."""

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Of what products multiply: float32; TF32, on NVIDIA GPUs; or bfloat16, with float32 sums, weights and optimiser.
    The device must have it; see ``precision.py``."""

    def __post_init__(self) -> None:
        problems = [*self._numbers(), *self._names(), *self._together()]
        if problems:
            raise InputError("this training cannot run: " + "; ".join(problems))

    def _numbers(self) -> Iterator[str]:
        for name in ("d_sae", "k", "steps", "batch_size", "log_every", "n_sites"):
            if getattr(self, name) < 1:
                yield f"{name} = {getattr(self, name)} must be at least 1"
        for name in ("encoder_scale", "bandwidth", "tanh_slope", "p_end"):
            if not getattr(self, name) > 0:
                yield f"{name} = {getattr(self, name)} must be positive"
        for name in (
            "lr", "checkpoint_every", "clip", "sparsity", "flops", "auxk", "k_aux", "dead_after", "resample_every",
            "end_to_end",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                yield f"{name} = {getattr(self, name)} must not be negative"
        for name, most in (("warmup", 0.8), ("decay", 1.0), ("sparsity_warmup", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                yield f"{name} = {getattr(self, name)} must lie in [0, {most:g}]"

    def _names(self) -> Iterator[str]:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (name == "kind" and _has_rule(value)):
                hint = nearest(str(value), choices)
                yield f"{name} = {value!r} is not known here; it is one of {list(choices)}{hint}"

    def _together(self) -> Iterator[str]:
        if self.k > self.d_sae:
            yield f"k = {self.k} exceeds d_sae = {self.d_sae}"
        if self.prefixes and (
            list(self.prefixes) != sorted(set(self.prefixes))
            or self.prefixes[0] < 1
            or self.prefixes[-1] != self.d_sae
        ):
            yield f"prefixes = {self.prefixes} must rise and end at d_sae = {self.d_sae}"
        if self.n_sites > 1 and self.wiring not in ("crosscoder", "cross-layer"):
            yield f"n_sites = {self.n_sites} means something for a crosscoder or cross-layer transcoder only"
        if self.kind in ("pursuit", "codebook") and self.wiring != "sae":
            yield f"kind = {self.kind!r} finds codes with its dictionary and cannot be a {self.wiring}"
        if self.precision == "bf16" and self.kind in ("pursuit", "codebook"):
            yield f"kind = {self.kind!r} is trained in float32; precision = 'bf16' would change nothing of it"
        if self.precision == "bf16" and self.screen == "always":
            yield "screen = 'always' finds places of float32 codes; precision = 'bf16' has none: leave it 'auto'"

    @property
    def widths(self) -> tuple[int, ...]:
        """Matryoshka's prefixes."""
        parts = sorted({self.d_sae // part for part in (16, 8, 4, 2, 1) if self.d_sae // part})
        return tuple(self.prefixes) or tuple(parts)

    @property
    def keeps_few(self) -> bool:
        """Whether the kind is of the TopK family."""
        return self.kind in _FEW

    @property
    def window(self) -> int:
        """Rows without firing after which a latent is dead."""
        most, share = max(1, self.steps // 10) * self.batch_size, self.steps * self.batch_size // 100
        return self.dead_after or min(most, max(self.batch_size, share, 64 * self.d_sae // self.k))

    def peak(self, d_out: int) -> float:
        """The largest rate: ``lr``, or where that is 0 a rate in proportion to the entries of a unit direction.

        0.064 / sqrt(d_out) x min(1, sqrt(1000 / steps)), and a tenth of it for signum, whose steps are all of that
        size. The constant was chosen on a planted dictionary of width 256 and 400 steps
        (``benchmarks/sae_quality.py``); the powers make steps a share of a direction, and long runs average more.
        """
        if self.lr:
            return self.lr
        share = 0.1 if self.optimizer == "signum" else 1.0
        return share * 0.064 / d_out**0.5 * min(1.0, (1000 / self.steps) ** 0.5)

    def rate(self, step: int, d_out: int) -> float:
        """The learning rate of ``step`` (counted from 0): linear warm-up, flat, linear decay."""
        rise, fall = self.warmup * self.steps, max(1.0, self.decay * self.steps)
        return self.peak(d_out) * min(1.0, (step + 1) / rise if rise > 0 else 1.0, (self.steps - step) / fall)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; :meth:`of` reads it back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TrainConfig:
        """From names and JSON values.

        Raises
        ------
        InputError
            An option that does not exist, one of another type, or a combination that cannot run.
        """
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise InputError(f"{name!r} is no option of a training{nearest(name, known)}")
            if not _fits(value, str(known[name].type)):
                raise InputError(f"{name} = {value!r} is not of type {known[name].type}")
        if "d_sae" not in values:
            raise InputError("d_sae, the number of latents, must be given")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**given)


def _has_rule(kind: str) -> bool:
    """Whether a kind that is none of ours was put into the table of rules; asked only then, since it imports torch."""
    from sae.rules import RULES

    return kind in RULES


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("tuple"):
        return isinstance(value, list | tuple) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in value
        )
    if kind == "int":
        return type(value) is int
    if kind == "float":
        return type(value) in (int, float)
    return isinstance(value, str)
