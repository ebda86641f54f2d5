"""How much faster is the exact sparse training step than a plain dense loop and than peers, at the same FVU?

    python -m benchmarks.sae_training [--steps 12] [--threads 1] [--kind topk] [--peers dense,ours] [--rounds 3]
    python -m benchmarks.sae_training --peer ours --kind batchtopk           # one peer in this process

Each peer trains on the same rows in the same order in a process of its own, so that peak memory is its own; CPU seconds
are of the process, training only; of several rounds the least counts. ``dense`` starts from our initial weights, on our
scaled rows, with our schedule, and so does sparsify: their FVU on held-out rows must be ours within 1%, else the
benchmark stops. ``floor`` is one dense product and the largest k of each row, ``product`` the product alone. The
libraries (``peers/sae_trainers.py``) are left out where they are not installed. JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.peers.sae_trainers import dictionary_learning, saelens, sparsify, sparsify_trainer
from benchmarks.sae_quality import planted
from sae.config import TrainConfig
from sae.learner import Learner
from sae.middle import scales_of
from sae.supply import supply

Apply = Callable[[Tensor], Tensor]


class Job:
    """Rows, their order, and a clock."""

    def __init__(self, rows: Tensor, config: TrainConfig) -> None:
        self.rows, self.config, self.cpu, self.peak = rows, config, 0.0, 0.0
        self.resting = _memory("VmRSS")

    def batches(self, more: int = 0) -> Iterator[Tensor]:
        """A fresh tensor a step, ``more`` of them for a loop that reads ahead."""
        n = self.config.batch_size
        for start in self.starts(more):
            yield self.rows[start : start + n].clone()

    def starts(self, more: int = 0) -> Iterator[int]:
        """The first row of each batch."""
        n = self.config.batch_size
        return (step * n % (len(self.rows) - n + 1) for step in range(self.config.steps + more))

    def timed(self, run: Callable[[], object]) -> None:
        """Run the training and nothing else."""
        _forget_peak()
        began = time.process_time()
        run()
        self.cpu, self.peak = time.process_time() - began, _memory("VmHWM")

    def learner(self) -> Learner:
        """Ours, before its first step."""
        sample = self.rows[:8192]
        return Learner.start(scales_of(sample, sample, n_sites=1, center="mean", place="rows"), self.config)


def _memory(field: str) -> float:
    """MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(s.split()[1]) for s in status.read_text().splitlines() if s.startswith(field)) / 1024


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux: the peak is that of the whole process
        return


def ours(job: Job) -> Apply:
    """The toolkit's learner, as ``sae.train`` drives it."""
    learner = job.learner()

    def run() -> None:
        for step, x in enumerate(job.batches()):
            learner.advance(x, x, job.config.rate(step, x.shape[1]))

    job.timed(run)
    return learner.finished().eval()


def ours_float32(job: Job) -> Apply:
    """The same without the bfloat16 screen."""
    job.config = replace(job.config, screen="never")
    return ours(job)


def dense(job: Job) -> Apply:
    """The shortest honest loop: dense encode, scatter, dense decode, autograd, Adam, unit-norm decoder."""
    config, learner = job.config, job.learner()
    coder, scales, n = learner.coder, learner.scales, job.config.batch_size
    encoder, decoder = coder.W_enc, coder.W_dec
    adam = torch.optim.Adam(coder.parameters(), betas=config.betas)
    edge = coder.threshold if config.kind == "batchtopk" else torch.zeros(())

    def step(number: int, x: Tensor) -> None:
        x = (x - scales.center_in) / scales.read
        pre = ((x - coder.b_dec) @ encoder + coder.b_enc).relu()
        if config.kind == "batchtopk":
            values, places = pre.flatten().topk(config.k * n, sorted=False)
            codes = torch.zeros_like(pre).flatten().scatter(0, places, values).view_as(pre)
            edge.lerp_(values.detach().min(), max(0.1, 1 / (number + 1)))
        else:
            values, places = pre.topk(config.k, dim=-1, sorted=False)
            codes = torch.zeros_like(pre).scatter(1, places, values)
        loss = (codes @ decoder + coder.b_dec - x).square().mean()
        adam.param_groups[0]["lr"] = config.rate(number, x.shape[1])
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            assert decoder.grad is not None  # backward has just been run
            decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) * decoder
        adam.step()
        decoder.data /= decoder.data.norm(dim=1, keepdim=True)

    def run() -> None:
        for number, x in enumerate(job.batches()):
            step(number, x)

    job.timed(run)
    return learner.finished().eval()


def product(job: Job) -> None:
    """One dense product a step."""
    weight, room = torch.randn(job.rows.shape[1], job.config.d_sae), torch.empty(0)
    job.timed(lambda: [torch.mm(x, weight, out=room) for x in job.batches()])


def floor(job: Job) -> None:
    """One dense product and the largest k of each row."""
    weight = torch.randn(job.rows.shape[1], job.config.d_sae)
    job.timed(lambda: [(x @ weight).topk(job.config.k, sorted=False) for x in job.batches()])


def draw(job: Job) -> None:
    """What it costs to draw the batches from the mixing buffer of a flow."""
    flow = supply(iter(list(job.rows.split(1024)) * 200), job.config.batch_size, 0)
    job.timed(lambda: [flow.batch(step, lambda indices: indices) for step in range(job.config.steps)])


def draw_still(job: Job) -> None:
    """The same from rows at hand, by index."""
    still = supply(job.rows, job.config.batch_size, 0)
    job.timed(lambda: [still.batch(step, lambda indices: indices) for step in range(job.config.steps)])


def together(job: Job) -> None:
    """Four dictionaries of other seeds in one pass over the same batches; beside it stands four times ``ours``."""
    learners = [Job(job.rows, replace(job.config, seed=seed)).learner() for seed in range(4)]

    def run() -> None:
        for step, x in enumerate(job.batches()):
            for learner in learners:
                learner.advance(x, x, job.config.rate(step, x.shape[1]))

    job.timed(run)


PEERS = {
    f.__name__: f
    for f in (
        product, floor, draw, draw_still, dense, ours, ours_float32, together, saelens, dictionary_learning, sparsify,
        sparsify_trainer,
    )
}  # fmt: skip


@torch.no_grad()
def fvu(apply: Apply, rows: Tensor) -> float:
    """Fraction of variance unexplained of rows not trained on."""
    left = sum(float((apply(part) - part).double().square().sum()) for part in rows.split(2048))
    return left / float((rows.double() - rows.double().mean(0)).square().sum())


def one(args: argparse.Namespace) -> dict[str, object]:
    """One peer in this process."""
    torch.set_num_threads(args.threads)
    rows, _ = planted(16_384 + 4096, args.d, args.d_sae, args.k / 2, 0)
    config = TrainConfig(
        kind=args.kind, d_sae=args.d_sae, k=args.k, steps=args.steps, batch_size=args.batch, lr=1e-3
    )
    job = Job(rows[:16_384], config)
    try:
        apply = PEERS[args.peer](job)
    except (ImportError, NotImplementedError) as missing:
        return {"peer": args.peer, "kind": args.kind, "skipped": str(missing)}
    line: dict[str, object] = {
        "peer": args.peer,
        "kind": args.kind,
        "cpu_s_a_step": round(job.cpu / args.steps, 4),
        "peak_mib": round(job.peak - job.resting),
    }
    return line if apply is None else line | {"fvu": round(fvu(apply, rows[16_384:]), 5)}


def main() -> None:
    """Every peer in a process of its own, then the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"steps": 12, "d": 512, "d-sae": 4096, "k": 32, "batch": 2048, "threads": 1}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--kind", choices=("topk", "batchtopk"), default="topk")
    parser.add_argument("--peer", choices=sorted(PEERS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", help="cuda: the job of sae_gpu.py, which a CPU can do with --tiny too")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", default="inductor", help="of --device: torch.compile's backend, or none")
    args = parser.parse_args()
    if args.device:
        from benchmarks.sae_gpu import measure

        measure(args)
        return
    if args.peer:
        print(json.dumps(one(args)), flush=True)
        return
    given = [f"--{name}={getattr(args, name.replace('-', '_'))}" for name in sizes] + [f"--kind={args.kind}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "WANDB_MODE": "disabled"}
    lines: dict[str, dict] = {}
    for _ in range(args.rounds):  # in turn, so that all of them meet the same neighbours on a shared machine
        for name in args.peers.split(","):
            line = _apart(name, given, environment)
            print(json.dumps(line), flush=True)
            best = lines.get(name, line)
            lines[name] = min(line, best, key=lambda told: told.get("cpu_s_a_step", float("inf")))
    print(json.dumps({"kind": args.kind, "threads": args.threads} | ratios(lines)), flush=True)


def _apart(name: str, given: list[str], environment: dict[str, str]) -> dict:
    """One peer in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sae_training", "--peer", name, *given]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    told = [text for text in done.stdout.splitlines() if text.startswith("{")]
    return json.loads(told[-1]) if told else {"peer": name, "failed": done.stderr.strip()[-200:]}


def ratios(lines: dict[str, dict]) -> dict[str, float]:
    """Ours against each; refuses figures of a step that is not the same step."""
    seconds = {name: line["cpu_s_a_step"] for name, line in lines.items() if "cpu_s_a_step" in line}
    for name in ("ours", "ours_float32", "sparsify", "sparsify_trainer"):
        told = lines.get(name, {})
        if "fvu" in told and "dense" in lines and abs(told["fvu"] / lines["dense"]["fvu"] - 1) > 0.01:
            raise SystemExit(f"{name} does not have the FVU of the dense loop: {told}, {lines['dense']}")
    mine = seconds.get("ours", float("nan"))
    found = {f"{name}_over_ours": round(value / mine, 2) for name, value in seconds.items() if name != "ours"}
    if "together" in seconds:
        found["together_over_four_alone"] = round(found.pop("together_over_ours") / 4, 2)
    for name in ("draw", "draw_still"):
        if name in seconds:
            found[f"{name}_share_of_step"] = round(seconds[name] / mine, 3)
    if "ours_float32" in seconds:
        exact = seconds["ours_float32"]
        found |= {f"{name}_over_ours_float32": round(value / exact, 2) for name, value in seconds.items()}
    if "dense" in lines and "ours" in lines:
        found["peak_over_dense"] = round(lines["ours"]["peak_mib"] / lines["dense"]["peak_mib"], 2)
    return found


if __name__ == "__main__":
    main()
