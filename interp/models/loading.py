"""``interp.load``: one call for every kind of model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from interp.errors import InterpError, ModelError, nearest
from interp.models.base import Model

__all__ = ["Backend", "load"]

Backend = Literal["auto", "transformers", "transformer_lens", "nnsight", "torch"]


def load(
    what: Any,
    *,
    backend: Backend = "auto",
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    tokenizer: Any = None,
    prove: bool = True,
    **options: Any,
) -> Model:
    """A model with named sites.

    Parameters
    ----------
    what
        The name of an embedded network (``"group:C59"``), a folder written by ``save_pretrained``, a hub
        name (from the local hub cache, or the hub itself where it may be asked; set ``HF_HUB_OFFLINE=1``
        to forbid that), any ``nn.Module``, a transformers model, a TransformerBridge, or an nnsight model.
        A module of yours is used as it is, in evaluation mode during passes, and never changed; where a
        library would rewrite it (TransformerBridge), a copy is handed over.
    backend
        The library that runs it; ``"auto"`` takes the one ``what`` belongs to, transformers for names and folders.
    device
        Where to put a model loaded by name (``"auto"``: a GPU if there is one). A module stays where it is.
    dtype
        Float type of a model loaded by name; as stored by default.
    tokenizer
        Used instead of the one that came with the model.
    prove
        Check on a short input that capturing changes nothing, an identity edit nothing, a zero edit something.
    **options
        For models loaded by name: accelerate's ``device_map`` and ``offload_folder``, ``revision``, and
        ``attn`` (the attention implementation); for nnsight: ``remote=True`` runs every pass on NDIF.

    Raises
    ------
    ModelError
        If it cannot be loaded, or its weights are not finite, or the proof fails (:class:`CheckError`).
    """
    if backend not in get_args(Backend):
        raise ModelError(f"no backend {backend!r}{nearest(str(backend), get_args(Backend))}")
    dtype = _dtype(dtype)
    if isinstance(what, str | Path):
        model = _by_name(what, backend, _device(device), dtype, tokenizer, options)
    elif isinstance(what, nn.Module) or _is_nnsight(what):
        if device is not None or dtype is not None:
            raise ModelError(
                "device and dtype are for models loaded by name; move the module itself with .to()"
            )
        model = _of_module(what, backend, tokenizer, options)
    else:
        raise ModelError(
            f"cannot load a {type(what).__name__}: give a name, a folder, an nn.Module, a bridge or an nnsight model"
        )
    if prove:
        from interp.models.audit import prove as check

        check(model)
    return model


def _by_name(
    what: str | Path, backend: str, device: Any, dtype: Any, tokenizer: Any, options: dict[str, Any]
) -> Model:
    name = str(what)
    if not name.strip():
        raise ModelError(
            "there is no model of the empty name; give a folder, a hub name or an embedded network"
        )
    if not Path(name).exists():
        from interp.toys import embedded, names

        if name in names() or ":" in name:
            made = embedded(name)
            module = made.module if device is None else made.module.to(device)
            return _of_module(
                module if dtype is None else module.to(dtype),
                backend,
                tokenizer or made.tokenizer,
                options,
                name=name,
            )
        if name.startswith((".", "/", "~")):
            raise ModelError(f"no folder {name!r}")
    elif not Path(name).is_dir():
        raise ModelError(f"'{name}' is a file; give the folder that save_pretrained wrote")
    elif not (Path(name) / "config.json").exists():
        held = sorted(p.name for p in Path(name).iterdir())[:6]
        raise ModelError(
            f"folder '{name}' holds no config.json (it holds {', '.join(held) or 'nothing'}): not a saved model"
        )
    from interp.models import hf

    known = {"device_map", "offload_folder", "revision", "attn", "remote"}
    if set(options) - known:
        odd = sorted(set(options) - known)[0]
        raise ModelError(f"load has no option {odd!r}{nearest(odd, known)}")
    chosen = {key: value for key, value in options.items() if key != "remote"}
    module = hf.load_module(name, dtype=dtype, device=device, **chosen)
    tokenizer = tokenizer or hf.load_tokenizer(name, revision=options.get("revision"))
    passed_on = {k: v for k, v in options.items() if k == "remote"}
    # the module is ours alone, so a library that rewrites it may have it
    return _of_module(module, backend, tokenizer, passed_on, name=Path(name).name, owned=True)


def _of_module(
    what: Any,
    backend: str,
    tokenizer: Any,
    options: dict[str, Any],
    *,
    name: str | None = None,
    owned: bool = False,
) -> Model:
    from interp.models import hf, hooked

    kind = type(what).__module__.partition(".")[0]
    if backend == "auto":
        backend = {"transformer_lens": "transformer_lens", "nnsight": "nnsight"}.get(kind, "auto")
    if backend == "nnsight" or kind == "nnsight":
        from interp.models import nns

        return nns.load(what, name=name, tokenizer=tokenizer, **options)
    if options:
        raise ModelError(f"option {sorted(options)[0]!r} does not apply to backend {backend!r}")
    if backend == "transformer_lens":
        from interp.models import tlens

        return tlens.load(what, name=name, tokenizer=tokenizer, owned=owned)
    if backend == "torch":
        return hooked.HookedModel(what, name=name, tokenizer=tokenizer)
    if hf.is_transformers_module(what):
        return _transformers(what, name, tokenizer)
    if backend == "transformers":
        raise ModelError(f"{type(what).__name__} is no transformers model; load it with backend='torch'")
    return hooked.HookedModel(what, name=name, tokenizer=tokenizer)


def _transformers(what: Any, name: str | None, tokenizer: Any) -> Model:
    """With the whole vocabulary, unless the model only looks like a family we know."""
    from interp.models import audit, hf

    model = hf.TransformersModel(what, name=name, tokenizer=tokenizer)
    try:
        reason = audit.misdescribed(model)
    except InterpError as error:
        reason = str(error)
    if reason is None:
        return model
    logging.getLogger("interp").warning("%s: %s; it is reached by module paths only", model.name, reason)
    return hf.TransformersModel(what, name=name, tokenizer=tokenizer, known=False)


def _is_nnsight(what: Any) -> bool:
    return type(what).__module__.partition(".")[0] == "nnsight"


def _device(device: Any) -> torch.device | None:
    if device is None:
        return None
    if device == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ModelError(
            f"no device {str(device)!r}{nearest(str(device), ('auto', 'cpu', 'cuda', 'cuda:0', 'mps'))}"
        ) from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            f"device {str(device)!r} was asked for, but torch {torch.__version__} finds no GPU here"
        )
    return wanted


def _dtype(dtype: Any) -> torch.dtype | None:
    if not isinstance(dtype, str):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"no dtype {dtype!r}{nearest(dtype, ('float32', 'float16', 'bfloat16', 'float64'))}")
    return found
