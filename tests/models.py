"""Random-weight models from configurations: every architecture family, small enough to run in milliseconds."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

VOCAB, CONTEXT = 50, 24
FAMILIES = ("gpt2", "llama", "gpt_neox", "bert", "mamba")
BACKENDS = ("transformers", "transformer_lens", "nnsight")
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}


def config_of(family: str):  # noqa: C901 - a table, written as ifs
    """A tiny configuration of the family."""
    import transformers as tf

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    sized = {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT, **_IDS}
    if family == "gpt2":
        return tf.GPT2Config(n_layer=3, n_embd=32, n_head=4, n_positions=CONTEXT, vocab_size=VOCAB, **_IDS)
    if family == "llama":
        return tf.LlamaConfig(**shape, **sized, num_key_value_heads=2)
    if family == "gpt_neox":
        return tf.GPTNeoXConfig(**shape, **sized)
    if family == "gpt_neox_serial":
        return tf.GPTNeoXConfig(**shape, **sized, use_parallel_residual=False)
    if family == "bert":
        return tf.BertConfig(**shape, **sized)
    if family == "gemma2":
        return tf.Gemma2Config(**shape, **sized, num_key_value_heads=2, head_dim=8)
    if family == "gemma":
        return tf.GemmaConfig(**shape, **sized, num_key_value_heads=2, head_dim=8)
    if family == "qwen3":
        return tf.Qwen3Config(**shape, **sized, num_key_value_heads=2, head_dim=8)
    if family == "olmo2":
        return tf.Olmo2Config(**shape, **sized, num_key_value_heads=2)
    if family == "granite":
        scales = {"residual_multiplier": 0.2, "embedding_multiplier": 3.0, "logits_scaling": 2.0}
        return tf.GraniteConfig(**shape, **sized, **scales)
    if family == "olmo":
        return tf.OlmoConfig(**shape, **sized)
    if family == "roberta":
        return tf.RobertaConfig(**shape, **{**sized, "pad_token_id": 1})
    if family == "opt":
        return tf.OPTConfig(
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            **sized,
        )
    assert family == "mamba", family
    return tf.MambaConfig(hidden_size=32, num_hidden_layers=3, vocab_size=VOCAB, state_size=8, **_IDS)


def random_model(family: str, *, seed: int = 0) -> nn.Module:
    """A model of the family whose every parameter, norms and biases included, is away from its initial value."""
    import transformers as tf

    config = config_of(family)
    classes = {"bert": tf.AutoModelForMaskedLM, "roberta": tf.AutoModelForMaskedLM}
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        module = classes.get(family, tf.AutoModelForCausalLM).from_config(config)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@functools.cache
def shared_model(family: str) -> nn.Module:
    """One random model a family for tests that only read it."""
    return random_model(family)


@functools.cache
def loaded(family: str, backend: str):
    """The shared model of a family behind a backend."""
    import interp

    with quiet():
        return interp.load(shared_model(family), backend=backend)


def ids(rows: int = 2, columns: int = 7, *, seed: int = 0) -> Tensor:
    """Random token ids, none of them special."""
    return torch.randint(2, VOCAB, (rows, columns), generator=torch.Generator().manual_seed(seed))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' warnings about tiny configurations."""
    import warnings

    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


class TinyNet(nn.Module):
    """A plain module with a shared layer, an in-place ReLU and a tuple output: what plain modules are like."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.act = nn.ReLU(inplace=True)
        self.shared = nn.Linear(8, 8)
        self.twice = Pair()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        h = self.shared(torch.tanh(self.shared(h)))
        a, b = self.twice(h)
        return self.last(a + b)


class Pair(nn.Module):
    """Returns a tuple, of which only the first tensor is what a site shows."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(x), 0.5 * x
