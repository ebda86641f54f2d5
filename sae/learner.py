"""One coder in training: the coder in scaled coordinates, its optimiser, who fired when; one step at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.coder import Coder
from sae.config import TrainConfig
from sae.downstream import Through
from sae.objectives import Moment, Terms, objective, rebuilt
from sae.optimisers import Optimiser
from sae.parallel import Alone
from sae.precision import ask, products
from sae.sharding import Shards
from sae.splitting import objective_sharded
from sae.wiring import reach

__all__ = ["Learner", "Scales"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scales:
    """Where the data lie: what is taken off rows, and what they are divided by (one number a site)."""

    center_out: Float[Tensor, "d_out"]
    read: Float[Tensor, "d_in"]
    written: Float[Tensor, "d_out"]
    center_in: Float[Tensor, "d_in"]

    def same_as(self, other: Scales) -> bool:
        """Whether the numbers are the same."""
        return all(
            torch.equal(getattr(self, name), getattr(other, name))
            for name in ("center_in", "center_out", "read", "written")
        )

    def scaled(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and targets in coordinates of unit variance; the same tensor twice if they are the same."""
        scaled = (x - self.center_in).div_(self.read)
        return scaled, scaled if y is x else (y - self.center_out).div_(self.written)


@dataclass(slots=True, kw_only=True, eq=False)
class Learner:
    """What changes while training. ``advance`` is a pure function of it, the rows and the rate."""

    config: TrainConfig
    coder: Coder
    optimiser: Optimiser
    scales: Scales
    last_fired: Int64[Tensor, "latent"]
    """The row count at which each latent was last used; 0 at the start."""
    step: int = 0
    smallest: float = 0.0
    peers: Alone = field(default_factory=Alone)
    n_dead: int = 0
    window: int = 0
    """Rows without firing after which a latent is dead; 0: what the configuration says. A resumed run keeps its own."""

    def __post_init__(self) -> None:
        self.window = self.window or self.config.window

    @classmethod
    def start(cls, scales: Scales, config: TrainConfig, peers: Alone | None = None) -> Learner:
        """A fresh dictionary, on the device of the scales.

        Raises
        ------
        InputError
            The device has not the precision asked for.
        """
        device = scales.read.device
        ask(config.precision, device)
        peers = peers or Alone()
        peers.ask(config)
        coder = Coder(
            len(scales.read), config.d_sae, config.k, kind=config.kind, seed=config.seed, wiring=config.wiring,
            d_out=len(scales.written), n_sites=config.n_sites, bandwidth=config.bandwidth,
        )  # fmt: skip
        with torch.no_grad():
            if not coder.rule.tied:
                coder.W_enc.mul_(config.encoder_scale)
            if config.kind == "jumprelu":
                coder.threshold.fill_(0.1)
            if config.kind == "codebook":  # entries of the size of what one of k is to explain
                coder.W_dec.mul_((coder.d_in / config.k) ** 0.5)
        coder = peers.part(coder.to(device))
        return cls(
            config=config,
            coder=coder,
            optimiser=Optimiser(config.optimizer, coder.named_parameters(), config.betas),
            scales=scales,
            last_fired=torch.zeros(coder.d_sae, dtype=torch.long, device=device),
            peers=peers,
        )

    @property
    def dead(self) -> Int64[Tensor, "dead"]:
        """Latents that have not fired within the window."""
        return (self.last_fired + self.window <= self.step * self.config.batch_size).nonzero().squeeze(1)

    def advance(
        self, x: Tensor, y: Tensor, rate: float, through: Through | None = None, *, scaled: bool = False
    ) -> dict[str, float]:
        """One optimiser step on this process's rows ``x`` and targets ``y``; loss, FVU and L0 of the whole batch.

        ``through`` adds the end-to-end loss on its texts. ``scaled``: the rows are in the learner's coordinates.
        """
        config, coder = self.config, self.coder
        if not scaled:
            x, y = self.scales.scaled(x, y)
        dead = self.dead
        self.n_dead = self.peers.latents(len(dead))
        n_rows = self.peers.total(len(x))
        moment = Moment(
            n_rows=n_rows,
            progress=self.step / config.steps,
            dead=dead if config.auxk and config.keeps_few else None,
            guess=self.smallest,
            peers=self.peers,
        )
        for parameter in coder.parameters():
            parameter.grad = None
        with products(config.precision, x.device):
            if isinstance(self.peers, Shards):
                terms = objective_sharded(coder, x, y, config, moment, self.peers)
            else:
                terms = objective(coder, x, y, config, moment)
            terms.loss.backward()
        told = y.new_zeros(1)
        if through is not None:
            surrogate, nats = through.term(
                lambda rows: self._rebuilt(rows, moment), self.step, seed=config.seed, loss=config.end_loss,
                peers=self.peers,
            )  # fmt: skip
            with products(config.precision, x.device):
                (config.end_to_end * surrogate).backward()
            told.fill_(nats)
            self.peers.add_([told])
        numbers = self._agree(terms, y, n_rows)
        if through is not None:
            numbers |= {"end": float(told), "loss": numbers["loss"] + config.end_to_end * float(told)}
        self._clip()
        self.optimiser.step(rate)
        self._settle()
        if config.keeps_few and coder.rule.pooled:
            self.learn_threshold(terms.smallest)
        self.last_fired[terms.fired > 0] = (self.step + 1) * config.batch_size
        self.step += 1
        if config.resample_every and self.step % config.resample_every == 0 and self.step < config.steps:
            self.resample(x, y, terms.error)
        return numbers

    def _rebuilt(self, rows: Tensor, moment: Moment) -> Tensor:
        """What the coder makes of rows, both in the coordinates of the data."""
        scales = self.scales
        x = (rows.to(scales.read.dtype) - scales.center_in) / scales.read
        with products(self.config.precision, x.device):
            made = rebuilt(self.coder, x, self.config, moment)
        return made * scales.written + scales.center_out

    @torch.no_grad()
    def _agree(self, terms: Terms, y: Tensor, n_rows: int) -> dict[str, float]:
        """Sum gradients and counts over the processes, take out what cannot or must not move."""
        coder = self.coder
        sums = torch.stack([terms.loss.detach(), terms.error.sum(), y.square().sum()])
        total, fired = y.sum(0), terms.fired.to(y.dtype)
        grads = [p.grad for p in coder.parameters() if p.grad is not None]
        self.peers.add_([sums, total, fired, *grads])
        terms.fired.copy_(fired)
        if self.config.decoder == "unit" and self.config.kind != "codebook":
            # a direction's own length is fixed: the gradient along it would only be undone again
            grad, own = coder.W_dec.grad, coder.W_dec.detach()
            assert grad is not None  # the decoder has just taken part in the loss
            grad.addcmul_(torch.linalg.vecdot(grad, own)[:, None], own, value=-1)
        if coder.wiring == "cross-layer":
            masks = reach(coder.wiring, coder.n_sites, coder.d_in, coder.d_sae, coder.d_out)
            for parameter, mask in zip((coder.W_enc, coder.W_dec), masks, strict=True):
                parameter.grad.mul_(mask)  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
        loss, error, power = sums.tolist()
        about = power - float(total.double().square().sum()) / n_rows
        return {"loss": loss, "fvu": error / about, "l0": self.peers.latents(int(fired.sum())) / n_rows}

    def _clip(self) -> None:
        if self.config.clip:
            self.peers.clip_(self.coder.named_parameters(), self.config.clip)

    @torch.no_grad()
    def _settle(self) -> None:
        """Back to unit norm, and thresholds that are thresholds."""
        coder = self.coder
        if self.config.decoder == "unit" and self.config.kind != "codebook":
            coder.W_dec.div_(coder.W_dec.norm(dim=1, keepdim=True).clamp_min_(1e-12))
        if self.config.kind == "jumprelu":
            coder.threshold.clamp_(min=0.0)

    def learn_threshold(self, smallest: float) -> None:
        """A running mean over some twenty batches: long enough to be sharp, short enough to follow the last steps."""
        if smallest == float("inf"):
            return
        share = max(0.1, 1.0 / (self.step + 1))
        self.coder.threshold.lerp_(self.coder.threshold.new_tensor(smallest), share)
        self.smallest = smallest

    @torch.no_grad()
    def resample(self, x: Tensor, y: Tensor, error: Tensor) -> None:
        """Dead latents start anew at rows that are explained badly (Bricken et al. 2023, appendix)."""
        coder, dead = self.coder, self.dead
        if not len(dead):
            return
        generator = torch.Generator().manual_seed(1_000_003 * self.config.seed + self.step)
        odds = error.double().cpu().square() + 1e-30
        picked = torch.multinomial(odds, len(dead), replacement=True, generator=generator).to(x.device)
        written = y[picked] - coder.b_dec
        read = coder.shifted(x)[picked]
        masks = reach(coder.wiring, coder.n_sites, coder.d_in, coder.d_sae, coder.d_out)
        if masks[0] is not None and masks[1] is not None:
            read, written = read * masks[0].T[dead], written * masks[1][dead]
        size = (coder.d_out / self.config.k) ** 0.5 if self.config.kind == "codebook" else 1.0
        coder.W_dec[dead] = size * written / written.norm(dim=1, keepdim=True).clamp_min(1e-12)
        self.optimiser.forget("W_dec", dead, 0)
        if not coder.rule.tied:
            length = 0.2 * coder.W_enc.norm(dim=0).mean()
            coder.W_enc[:, dead] = (length * read / read.norm(dim=1, keepdim=True).clamp_min(1e-12)).T
            coder.b_enc[dead] = 0.0
            self.optimiser.forget("W_enc", dead, 1)
            self.optimiser.forget("b_enc", dead, 0)
        self.last_fired[dead] = self.step * self.config.batch_size

    @torch.no_grad()
    def finished(self) -> Coder:
        """The coder as it is to be used: averaged if it was, in the coordinates of the data, of unit norm."""
        coder = self.coder.alike(d_sae=self.config.d_sae)
        coder.load_state_dict(self.peers.whole(self.coder.state_dict() | self.optimiser.averaged()))
        one = self.config.n_sites == 1 and self.config.wiring == "sae"
        read: float | Tensor = float(self.scales.read[0]) if one else self.scales.read
        coder = coder.rescaled(read, None if one else self.scales.written)
        coder.move_(self.scales.center_in, self.scales.center_out)
        if self.config.kind not in ("codebook", "pursuit") and not self.config.keeps_few:
            coder.normalise_()
        return coder
