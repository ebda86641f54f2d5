"""The Hugging Face transformers adapter: the only file that imports transformers.

Attention scores and patterns live inside an attention function, so they are reached through the
library's own registry of attention functions: for one pass the model's configuration names ours
(:func:`_attention`), which leaves the model's own function in charge unless a score is edited or a
gradient is taken. Nothing else of the module is touched.
"""

# long: the one file that may import transformers

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from interp.errors import ModelError, nearest
from interp.frames import Frame, Inputs
from interp.models.families import anatomy_of
from interp.models.hooked import HookedModel
from interp.models.running import ATTENTION, Plan, Stages
from interp.models.taps import Tap
from interp.sites import Site

__all__ = [
    "TransformersModel",
    "check_attention",
    "is_transformers_module",
    "load_module",
    "load_tokenizer",
    "new_gpt2",
    "our_attention",
]

_SWITCH = threading.Lock()
_USERS: dict[int, int] = {}
"""How many passes under way want a configuration to name our attention function."""

_OURS = "interp"
"""Prefix of the attention functions we register: ``interp_sdpa`` runs sdpa unless a score is edited."""


class TransformersModel(HookedModel):
    """A transformers model: every architecture by module path, the known families by the whole vocabulary."""

    backend = "transformers"

    def __init__(
        self, module: nn.Module, *, name: str | None = None, tokenizer: Any = None, known: bool = True
    ) -> None:
        """``known=False``: module paths only, whatever the architecture looks like."""
        config: Any = module.config
        anatomy = anatomy_of(module, config) if known else None
        super().__init__(module, name=name or _name(config), anatomy=anatomy, tokenizer=tokenizer)
        self.can_cache = bool(self.anatomy and self.anatomy.causal)
        self._takes = frozenset(inspect.signature(module.forward).parameters)
        self._embed: Any = module.get_input_embeddings()  # type: ignore[operator]
        self._first_position = first_position(self)
        self._n_ctx = context_length(config, self._first_position)
        self.inert.update(check_attention(module, self.taps))

    @property
    def n_ctx(self) -> int | None:
        """The longest sequence the position embedding allows; a rotary model's configured maximum."""
        return self._n_ctx

    @property
    def d_vocab(self) -> int | None:
        return self._embed.num_embeddings if isinstance(self._embed, nn.Embedding) else None

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the embedding (a model may lie on several)."""
        hook = self._embed.__dict__.get("_hf_hook")  # put there by accelerate
        where = getattr(hook, "execution_device", None)
        return self._embed.weight.device if where is None else torch.device(where)

    @property
    def has_logits(self) -> bool:
        """Whether the model has an output head."""
        return self.module.get_output_embeddings() is not None  # type: ignore[operator]

    def _weights(self) -> Mapping[str, Tensor]:
        held = self.module.state_dict()
        if not any(tensor.is_meta for tensor in held.values()):
            return held
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        return get_state_dict_offloaded_model(self.module)

    def _inside(self, plan: Plan) -> AbstractContextManager[None]:
        if not plan.inside:
            return super()._inside(plan)
        for site in plan.sites:
            self.require_causal(site)
        return our_attention(self.module)

    def forward(self, inputs: Inputs, frame: Frame, cache: Any) -> Any:
        options: dict[str, Any] = {}
        if "use_cache" in self._takes:
            options["use_cache"] = cache is not None
        mask = inputs.padding
        if cache is not None:
            # a recurrent state has the padding behind it already: it takes no mask of the past
            mask = None if "cache_params" in cache.held else cache.mask
            options.update(cache.options())
        if mask is not None:
            if "attention_mask" not in self._takes:
                raise ModelError(f"{self.name} takes no attention mask: give sequences of one length")
            options["attention_mask"] = mask.long()
            if "position_ids" in self._takes and (inputs.left_padded or cache is not None):
                options["position_ids"] = positions_of(mask, self._first_position)[:, -inputs.ids.shape[1] :]
        out = self.module(input_ids=inputs.ids, **options)
        if cache is not None:
            cache.keep(out)
        logits = getattr(out, "logits", None)
        if logits is None:
            if self.has_logits:
                raise ModelError(f"{self.name} returned no logits")
            return out[0]
        return logits


def positions_of(mask: Tensor, first: int) -> Tensor:
    """Position ids that count real tokens only."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0) + first


def first_position(model: HookedModel) -> int:
    """The position id of a sequence's first token: RoBERTa's stand behind its padding id."""
    if model.anatomy is None or model.anatomy.pos_embed is None:
        return 0
    padding = getattr(model.submodule(model.anatomy.pos_embed), "padding_idx", None)
    return 0 if padding is None else padding + 1


def context_length(config: Any, first: int = 0) -> int | None:
    """The longest sequence a configuration allows, None where it sets no limit."""
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value - first
    return None


def check_attention(module: nn.Module, taps: Mapping[Site, Tap]) -> dict[Site, str]:
    """The sites inside attention functions that cannot be reached, with the reason."""
    inside = [site for site, tap in taps.items() if tap.interface]
    if not inside:
        return {}
    core = type(module.get_submodule(taps[inside[0]].path))
    if "ALL_ATTENTION_FUNCTIONS" in inspect.getsource(core.forward):
        return {}
    return dict.fromkeys(inside, f"{core.__name__} does not use a replaceable attention function")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention with its stages shown to the pass's visitors.

    query [batch, head, pos, d_head], key and value [batch, kv head, key pos, d_head]. The model's own
    function computes the output, so that looking changes no bit; ours does where a score or pattern was
    edited, or a gradient through them is wanted.
    """
    stages = (ATTENTION.get() or {}).get(module)
    original = _original(module)
    if stages is None:
        return original(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    turned = query.transpose(1, 2)
    shown = stages.show("rot_q", turned)
    query = query if shown is turned else shown.transpose(1, 2)
    key = _show_last(stages, key, query.shape[2])
    if "attn_scores" not in stages and "pattern" not in stages:
        return original(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    if kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise ModelError(f"{type(module).__name__} biases its scores: patterns cannot be shown exactly")
    groups = query.shape[1] // key.shape[1]
    wide_key = key.repeat_interleave(groups, dim=1) if groups > 1 else key
    wide_value = value.repeat_interleave(groups, dim=1) if groups > 1 else value
    scores = query @ wide_key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if kwargs.get("softcap"):  # Gemma 2
        scores = torch.tanh(scores / kwargs["softcap"]) * kwargs["softcap"]
    scores = _masked(scores, attention_mask, module, kwargs)
    shown = stages.show("attn_scores", scores)
    if shown is not scores:  # a row of padding, all masked, must stay finite
        shown = shown.clamp(min=torch.finfo(shown.dtype).min)
    pattern = shown.softmax(-1, dtype=torch.promote_types(shown.dtype, torch.float32)).to(query.dtype)
    final = stages.show("pattern", pattern)
    if final is pattern and shown is scores and not torch.is_grad_enabled():
        return original(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    return (final @ wide_value).transpose(1, 2).contiguous(), final


def _show_last(stages: Stages, key: Tensor, n: int) -> Tensor:
    """Show the keys of the last ``n`` positions: those of this pass, where a cache holds earlier ones."""
    before, now = key[:, :, :-n], key[:, :, -n:].transpose(1, 2)
    shown = stages.show("rot_k", now)
    return key if shown is now else torch.cat([before, shown.transpose(1, 2)], dim=2)


def _masked(scores: Tensor, mask: Tensor | None, module: nn.Module, kwargs: dict[str, Any]) -> Tensor:
    """Scores with masked keys at the type's lowest number, whichever way the model writes its mask."""
    lowest = torch.finfo(scores.dtype).min
    if mask is not None:
        if mask.dtype == torch.bool:
            return scores.masked_fill(~mask, lowest)
        return scores + mask
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    n_query, n_key = scores.shape[-2:]
    if not causal or n_query == 1:
        return scores
    seen = torch.ones(n_query, n_key, dtype=torch.bool, device=scores.device).tril(n_key - n_query)
    return scores.masked_fill(~seen, lowest)


def _original(module: nn.Module) -> Any:
    """The attention function the model would have used: its name stands behind ours in the configuration."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    config: Any = module.config
    name = str(config._attn_implementation).removeprefix(_OURS + "_")
    eager = getattr(inspect.getmodule(type(module)), "eager_attention_forward", None)
    function = ALL_ATTENTION_FUNCTIONS.get(name, eager) if name != "eager" else eager
    if function is None:
        raise ModelError(f"no attention function {name!r} for {type(module).__name__}")
    return function


@contextmanager
def our_attention(module: nn.Module) -> Iterator[None]:
    """For one pass, name our attention function in the configurations of the module's parts; give them back after."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    configs: dict[int, Any] = {
        id(m.config): m.config
        for m in module.modules()
        if hasattr(getattr(m, "config", None), "_attn_implementation")
    }
    with _SWITCH:  # passes of other threads may have it switched already: the last one gives it back
        before = {}
        for key, config in configs.items():
            before[key] = str(config._attn_implementation).removeprefix(f"{_OURS}_")
            _USERS[key] = _USERS.get(key, 0) + 1
    for name in set(before.values()):
        AttentionInterface.register(f"{_OURS}_{name}", _attention)
        mask = ALL_MASK_ATTENTION_FUNCTIONS.get(name)
        if mask is None:
            raise ModelError(
                f"attention implementation {name!r} makes its masks in its own way; load with attn='eager'"
            )
        AttentionMaskInterface.register(f"{_OURS}_{name}", mask)
    try:
        for key, config in configs.items():
            config._attn_implementation = f"{_OURS}_{before[key]}"
        yield
    finally:
        with _SWITCH:
            for key, config in configs.items():
                users = _USERS[key] = _USERS[key] - 1
                if not users:
                    del _USERS[key]
                    config._attn_implementation = before[key]


def is_transformers_module(module: object) -> bool:
    """Whether ``module`` is a transformers model."""
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel)


def load_module(
    source: str | Path,
    *,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    device_map: Any = None,
    offload_folder: str | Path | None = None,
    attn: str | None = None,
    revision: str | None = None,
) -> nn.Module:
    """The model saved in a folder, or a hub model out of the local cache (or the hub, if it may be asked)."""
    import transformers

    local = Path(source).is_dir()
    options: dict[str, Any] = {"dtype": dtype or "auto", "revision": revision or "main"}
    if attn:
        options["attn_implementation"] = attn
    if device_map is not None:
        options.update(device_map=device_map, offload_folder=offload_folder)
    try:
        config = transformers.AutoConfig.from_pretrained(
            source, revision=revision or "main", local_files_only=local
        )
        loader = _loader(transformers, config)
        with _quiet_bars(transformers, source):
            module = loader.from_pretrained(source, **options, local_files_only=local)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(_load_message(source, local, error)) from error
    if device is not None and device_map is None:
        module = module.to(device)
    return module.eval()


def new_gpt2(
    *, d_vocab: int, n_ctx: int, n_layers: int, d_model: int, n_heads: int, bos: int, pad: int
) -> nn.Module:
    """A GPT-2 language model with fresh weights (from torch's global generator) and no dropout, in training mode."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=d_vocab, n_positions=n_ctx, n_embd=d_model, n_layer=n_layers, n_head=n_heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=bos, eos_token_id=bos, pad_token_id=pad,
        architectures=["GPT2LMHeadModel"], use_cache=False,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


@contextmanager
def _quiet_bars(transformers: Any, source: str | Path) -> Iterator[None]:
    """transformers draws a bar for each loading: only a terminal gets one, and only for what takes a while."""
    bars = transformers.utils.logging
    sizes = [file.stat().st_size for file in Path(source).glob("*.safetensors")]
    at_once = sizes and sum(sizes) < 2**28
    silent = bars.is_progress_bar_enabled() and (at_once or not sys.stderr.isatty())
    if silent:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if silent:
            bars.enable_progress_bar()


def _loader(transformers: Any, config: Any) -> Any:
    """The class the checkpoint was saved from, else the automatic choice for a causal model."""
    for name in getattr(config, "architectures", None) or ():
        found = getattr(transformers, name, None)
        if found is not None:
            return found
        raise ModelError(
            f"the checkpoint names the class {name!r}, which transformers {transformers.__version__} lacks"
            f"{nearest(name, [n for n in dir(transformers) if n.endswith(('LM', 'LMHeadModel', 'Model'))])}"
        )
    return transformers.AutoModelForCausalLM


def _load_message(source: str | Path, local: bool, error: Exception) -> str:
    first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    if local:
        return f"cannot load a model from folder '{source}': {first}"
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    where = (
        "HF_HUB_OFFLINE=1 and it is not in the hub cache"
        if offline
        else "it is neither a folder nor a reachable hub model"
    )
    from interp.toys import names

    return f"cannot load model '{source}': {where}{nearest(str(source), names())} ({first})"


def load_tokenizer(source: str | Path, *, revision: str | None = None) -> Any:
    """The tokenizer saved beside a model, or None where there is none."""
    from transformers import AutoTokenizer

    folder = Path(source)
    if folder.is_dir() and not any(
        (folder / n).exists() for n in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    ):
        return None
    try:
        return AutoTokenizer.from_pretrained(
            source, revision=revision or "main", local_files_only=folder.is_dir()
        )
    except (OSError, ValueError, KeyError) as error:
        if folder.is_dir():
            raise ModelError(
                f"cannot load the tokenizer in '{source}': {str(error).splitlines()[0][:300]}"
            ) from error
        return None


def _name(config: Any) -> str:
    return getattr(config, "_name_or_path", "") or getattr(config, "model_type", "transformers")
