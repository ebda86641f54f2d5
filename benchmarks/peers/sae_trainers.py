"""Peers of `sae_training.py`, through their own public entries, on the rows, order and rates of its job.

    pip install --no-deps sae-lens==6.54.12 transformer-lens==3.9.0 dictionary-learning==0.1.0 eai-sparsify==1.3.3

in an environment of its own with what they import (better-abc, einops, natsort, schedulefree, simple-parsing); none
of them can be installed beside this toolkit. sparsify needs a GPU driver where Triton is installed, and runs its own
eager path elsewhere. What is not installed raises ImportError.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]


def saelens(job: Any) -> Apply:
    """SAELens, through its trainer; evaluated as its user would load it."""
    from sae_lens import (  # pyright: ignore[reportMissingImports]
        SAE,
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )  # fmt: skip
    from sae_lens.config import LoggingConfig, SAETrainerConfig  # pyright: ignore[reportMissingImports]
    from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore[reportMissingImports]

    config, one = job.config, job.config.kind == "topk"
    make, options = (
        (TopKTrainingSAE, TopKTrainingSAEConfig)
        if one
        else (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig)
    )
    coder = make(
        options(d_in=job.rows.shape[1], d_sae=config.d_sae, k=config.k, device="cpu", dtype="float32")
    )
    rate, warm = config.peak(job.rows.shape[1]), max(1, config.steps // 20)
    course = SAETrainerConfig(
        total_training_samples=config.steps * config.batch_size,
        train_batch_size_samples=config.batch_size,
        lr=rate, lr_end=rate / 10, lr_warm_up_steps=warm, lr_decay_steps=config.steps - warm - 1,
        dead_feature_window=10**9,
        logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    trainer = SAETrainer(cfg=course, sae=coder, data_provider=job.batches(more=2))
    job.timed(trainer.fit)
    with tempfile.TemporaryDirectory() as folder:
        coder.save_inference_model(folder)
        loaded = SAE.load_from_disk(folder)
    return lambda x: loaded.decode(loaded.encode(x))


def dictionary_learning(job: Any) -> Apply:
    """dictionary_learning, through trainSAE."""
    import torch._dynamo  # noqa: F401 - einops pulls it in at its first call; not a cost of training
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # pyright: ignore
    from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore
    from dictionary_learning.training import trainSAE  # pyright: ignore

    held: list = []

    class Kept(TopKTrainer if job.config.kind == "topk" else BatchTopKTrainer):
        def __init__(self, **options) -> None:  # trainSAE returns nothing: keep a hold on what it trains
            super().__init__(**options)
            held.append(self)

    config, width = job.config, job.rows.shape[1]
    warm = max(1, config.steps // 20)
    asked = {
        "trainer": Kept, "steps": config.steps, "activation_dim": width, "dict_size": config.d_sae, "k": config.k,
        "lr": config.peak(width), "layer": 0, "lm_name": "rows", "device": "cpu", "warmup_steps": warm,
        "decay_start": warm + 1, "threshold_start_step": warm, "threshold_beta": 0.99, "seed": 0,
    }  # fmt: skip
    job.timed(lambda: trainSAE(job.batches(more=1), [asked], steps=config.steps, device="cpu"))
    coder, learnt = held[0].ae, job.config.kind == "batchtopk"
    return lambda x: coder.decode(coder.encode(x, use_threshold=learnt))


def _begun_alike(job: Any, coder: Any) -> tuple[Any, Callable[[], None]]:
    """Our learner, whose initial weights sparsify's ``coder`` gets, and what brings those it learns back."""
    learner = job.learner()
    ours = learner.coder
    pairs = [
        (ours.W_enc, coder.encoder.weight, True),
        (ours.b_enc, coder.encoder.bias, False),
        (ours.W_dec, coder.W_dec, False),
        (ours.b_dec, coder.b_dec, False),
    ]
    for mine, theirs, turned in pairs:
        theirs.data.copy_(mine.data.T if turned else mine.data)

    def back() -> None:
        for mine, theirs, turned in pairs:
            mine.data.copy_(theirs.data.T if turned else theirs.data)

    return learner, back


def sparsify(job: Any) -> Apply:
    """sparsify's coder alone, stepped as its trainer does, with the fused Adam that its trainer does not use.

    From our initial weights, on our scaled rows, with our rates: its FVU must be ours.
    """
    from sparsify import SaeConfig, SparseCoder  # pyright: ignore[reportMissingImports]

    config, width = job.config, job.rows.shape[1]
    if config.kind != "topk":
        raise NotImplementedError("sparsify has no BatchTopK")
    coder = SparseCoder(
        width, SaeConfig(num_latents=config.d_sae, k=config.k), device="cpu", dtype=torch.float32
    )
    learner, back = _begun_alike(job, coder)
    scales = learner.scales
    adam = torch.optim.Adam(coder.parameters(), betas=config.betas, fused=True)

    def run() -> None:
        for number, x in enumerate(job.batches()):
            x = (x - scales.center_in).div_(scales.read)
            coder.set_decoder_norm_to_unit_norm()
            adam.param_groups[0]["lr"] = config.rate(number, width)
            coder(x).fvu.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            adam.step()
            adam.zero_grad()
        coder.set_decoder_norm_to_unit_norm()

    job.timed(run)
    back()
    return learner.finished().eval()


def sparsify_trainer(job: Any) -> Apply:
    """sparsify's Trainer, fed by a transformer of one module that looks rows up; same weights, rows and rates."""
    from datasets import Dataset
    from sparsify import SaeConfig, Trainer  # pyright: ignore[reportMissingImports]
    from sparsify import TrainConfig as Course  # pyright: ignore[reportMissingImports]

    config, width, long = job.config, job.rows.shape[1], 128
    if config.kind != "topk":
        raise NotImplementedError("sparsify has no BatchTopK")
    if config.batch_size % long:
        raise NotImplementedError(f"its batches are whole sequences of {long}")
    scales = job.learner().scales
    order = torch.cat([torch.arange(at, at + config.batch_size) for at in job.starts()]).view(-1, long)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        asked = Course(
            SaeConfig(num_latents=config.d_sae, k=config.k), batch_size=config.batch_size // long, optimizer="adam",
            lr=1.0, hookpoints=["rows"], init_seeds=[0], log_to_wandb=False, save_every=10**9, save_dir=folder,
        )  # fmt: skip
        rows = (job.rows - scales.center_in) / scales.read
        data = Dataset.from_dict({"input_ids": order.tolist()}).with_format("torch")
        trainer = Trainer(asked, data, _lookup(rows))
        (coder,) = trainer.saes.values()
        learner, back = _begun_alike(job, coder)
        (adam,) = trainer.optimizers
        for group in adam.param_groups:
            group["betas"] = config.betas
            group["lr"] = group["initial_lr"] = 1.0
        trainer.lr_schedulers = [
            torch.optim.lr_scheduler.LambdaLR(
                adam, lambda step: config.rate(min(step, config.steps - 1), width)
            )
        ]
        trainer.cfg.finetune = "our initial weights"  # else its first batch sets b_dec
        job.timed(trainer.fit)
    coder.set_decoder_norm_to_unit_norm()
    back()
    return learner.finished().eval()


def _lookup(rows: Tensor) -> Any:
    """The smallest model that sparsify's trainer takes: its one module gives the rows of the ids."""
    from transformers import PretrainedConfig, PreTrainedModel

    class Numbers(PretrainedConfig):
        model_type = "row_lookup"

    class Rows(torch.nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return rows[ids]

    class Model(PreTrainedModel):
        config_class = Numbers

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.rows = Rows()
            self.anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
            self.post_init()

        @property
        def dummy_inputs(self) -> dict[str, Tensor]:
            return {"input_ids": torch.zeros(1, 4, dtype=torch.long)}

        def forward(self, input_ids: Any = None, **_: Any) -> Tensor:
            return self.rows(input_ids)

    return Model(Numbers())
