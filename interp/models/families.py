"""The architectures we know: from a Hugging Face module and its configuration to an :class:`Anatomy`.

Families are recognised by what the modules are called, not by importing their classes; a decoder
that is built like Llama but has another name is therefore understood too. What is not recognised
gets its sites by module path (:func:`anatomy_of` returns None), never a guess.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from interp.models.anatomy import MLP, Anatomy, Attention, Block, Mixer, Norm, Projection

__all__ = ["anatomy_of"]


def anatomy_of(module: nn.Module, config: Any) -> Anatomy | None:
    """The anatomy of a Hugging Face model, or None if its architecture is not one we know."""
    paths = dict(module.named_modules())
    for build in (_gpt2, _neox, _bert, _mamba, _llama):
        anatomy = build(paths, config)
        if anatomy is not None and _complete(anatomy, paths):
            return anatomy
    return None


def _complete(anatomy: Anatomy, paths: dict[str, nn.Module]) -> bool:
    """Whether every module the description names exists."""
    named = [anatomy.embed, anatomy.pos_embed, anatomy.unembed, anatomy.ln_final and anatomy.ln_final.path]
    for block in anatomy.blocks:
        named += [block.path, block.ln1 and block.ln1.path, block.ln2 and block.ln2.path]
        named += [block.attn_write, block.mlp_write, block.resid_mid]
        if block.attn:
            attn = block.attn
            named += [attn.path, attn.core, attn.q.path, attn.k.path, attn.v.path, attn.o.path]
        if block.mlp:
            named += [block.mlp.path, block.mlp.up, block.mlp.down, block.mlp.gate]
        if block.mixer:
            named += [block.mixer.path, block.mixer.in_proj, block.mixer.out_proj]
    return all(name in paths for name in named if name)


def _stem(paths: dict[str, nn.Module], *candidates: str) -> str | None:
    """The first prefix under which a list of layers stands (a model with a head, or the bare trunk)."""
    return next((c for c in candidates if c in paths), None)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _gpt2(paths: dict[str, nn.Module], config: Any) -> Anatomy | None:
    layers = _stem(paths, "transformer.h", "h")
    if layers is None or f"{layers}.0.attn.c_attn" not in paths or f"{layers}.0.ln_2" not in paths:
        return None
    trunk, d, n = layers.removesuffix("h").rstrip("."), config.n_embd, config.n_head

    def block(i: int) -> Block:
        at = f"{layers}.{i}"
        qkv = [
            Projection(path=f"{at}.attn.c_attn", layout="span", start=part * d, width=d) for part in range(3)
        ]
        attn = Attention(
            path=f"{at}.attn",
            q=qkv[0],
            k=qkv[1],
            v=qkv[2],
            o=Projection(path=f"{at}.attn.c_proj"),
            n_heads=n,
            n_kv_heads=n,
            d_head=d // n,
            interface=not getattr(config, "reorder_and_upcast_attn", False),
        )
        mlp = MLP(path=f"{at}.mlp", up=f"{at}.mlp.c_fc", down=f"{at}.mlp.c_proj")
        return Block(path=at, attn=attn, mlp=mlp, ln1=Norm(path=f"{at}.ln_1"), ln2=Norm(path=f"{at}.ln_2"))

    return Anatomy(
        d_model=d,
        blocks=tuple(block(i) for i in range(config.n_layer)),
        embed=_join(trunk, "wte"),
        pos_embed=_join(trunk, "wpe"),
        ln_final=Norm(path=_join(trunk, "ln_f")),
        unembed="lm_head" if "lm_head" in paths else None,
        family="gpt2",
        chained=True,
    )


def _neox(paths: dict[str, nn.Module], config: Any) -> Anatomy | None:
    layers = _stem(paths, "gpt_neox.layers", "layers")
    if layers is None or f"{layers}.0.attention.query_key_value" not in paths:
        return None
    trunk, d, n = layers.removesuffix("layers").rstrip("."), config.hidden_size, config.num_attention_heads

    def block(i: int) -> Block:
        at = f"{layers}.{i}"
        qkv = [
            Projection(path=f"{at}.attention.query_key_value", layout="interleaved", start=part, width=3)
            for part in range(3)
        ]
        attn = Attention(
            path=f"{at}.attention",
            q=qkv[0],
            k=qkv[1],
            v=qkv[2],
            o=Projection(path=f"{at}.attention.dense"),
            n_heads=n,
            n_kv_heads=n,
            d_head=d // n,
            rotary=True,
            interface=True,
        )
        mlp = MLP(path=f"{at}.mlp", up=f"{at}.mlp.dense_h_to_4h", down=f"{at}.mlp.dense_4h_to_h")
        ln1, ln2 = Norm(path=f"{at}.input_layernorm"), Norm(path=f"{at}.post_attention_layernorm")
        return Block(
            path=at, attn=attn, mlp=mlp, ln1=ln1, ln2=ln2, parallel=bool(config.use_parallel_residual)
        )

    unembed = next((name for name in ("embed_out", "lm_head") if name in paths), None)
    return Anatomy(
        d_model=d,
        blocks=tuple(block(i) for i in range(config.num_hidden_layers)),
        embed=_join(trunk, "embed_in"),
        ln_final=Norm(path=_join(trunk, "final_layer_norm")),
        unembed=unembed,
        family="gpt_neox",
        chained=True,
    )


def _bert(paths: dict[str, nn.Module], config: Any) -> Anatomy | None:
    layers = _stem(paths, "bert.encoder.layer", "roberta.encoder.layer", "encoder.layer")
    if layers is None or f"{layers}.0.attention.self.query" not in paths:
        return None
    trunk, d, n = (
        layers.removesuffix("encoder.layer").rstrip("."),
        config.hidden_size,
        config.num_attention_heads,
    )

    def block(i: int) -> Block:
        at = f"{layers}.{i}"
        q, k, v = (Projection(path=f"{at}.attention.self.{name}") for name in ("query", "key", "value"))
        attn = Attention(
            path=f"{at}.attention.output.dense",
            core=f"{at}.attention.self",
            q=q,
            k=k,
            v=v,
            o=Projection(path=f"{at}.attention.output.dense"),
            n_heads=n,
            n_kv_heads=n,
            d_head=d // n,
            interface=True,
        )
        mlp = MLP(path=f"{at}.output.dense", up=f"{at}.intermediate.dense", down=f"{at}.output.dense")
        return Block(
            path=at,
            attn=attn,
            mlp=mlp,
            placement="post",
            resid_mid=f"{at}.attention",
            ln1=Norm(path=f"{at}.attention.output.LayerNorm"),
            ln2=Norm(path=f"{at}.output.LayerNorm"),
        )

    heads = ("cls.predictions.decoder", "lm_head.decoder")
    position = getattr(config, "position_embedding_type", "absolute") == "absolute"
    return Anatomy(
        d_model=d,
        blocks=tuple(block(i) for i in range(config.num_hidden_layers)),
        embed=_join(trunk, "embeddings.word_embeddings"),
        pos_embed=_join(trunk, "embeddings.position_embeddings") if position else None,
        unembed=next((name for name in heads if name in paths), None),
        causal=bool(getattr(config, "is_decoder", False)),
        family="bert",
        chained=True,
    )


def _mamba(paths: dict[str, nn.Module], config: Any) -> Anatomy | None:
    layers = _stem(paths, "backbone.layers", "layers")
    if layers is None or f"{layers}.0.mixer.in_proj" not in paths or f"{layers}.0.norm" not in paths:
        return None
    trunk = layers.removesuffix("layers").rstrip(".")

    def block(i: int) -> Block:
        at = f"{layers}.{i}"
        mixer = Mixer(path=f"{at}.mixer", in_proj=f"{at}.mixer.in_proj", out_proj=f"{at}.mixer.out_proj")
        return Block(path=at, mixer=mixer, ln1=Norm(path=f"{at}.norm", kind="rms"))

    return Anatomy(
        d_model=config.hidden_size,
        blocks=tuple(block(i) for i in range(config.num_hidden_layers)),
        embed=_join(trunk, "embeddings"),
        ln_final=Norm(path=_join(trunk, "norm_f"), kind="rms"),
        unembed="lm_head" if "lm_head" in paths else None,
        family="mamba",
        chained=True,
    )


def _llama(paths: dict[str, nn.Module], config: Any) -> Anatomy | None:
    """Llama and what is built like it: Mistral, Qwen2/3, Gemma 1-3, OLMo2 (dense, unfused projections)."""
    layers = _stem(paths, "model.layers", "layers")
    if (
        layers is None
        or f"{layers}.0.self_attn.q_proj" not in paths
        or f"{layers}.0.mlp.gate_proj" not in paths
    ):
        return None
    trunk, d, n = layers.removesuffix("layers").rstrip("."), config.hidden_size, config.num_attention_heads
    n_kv = getattr(config, "num_key_value_heads", None) or n
    d_head = getattr(config, "head_dim", None) or d // n
    gemma = str(getattr(config, "model_type", "")).startswith("gemma")

    def norm(path: str) -> Norm:
        return Norm(
            path=path, kind="layer" if isinstance(paths.get(path), nn.LayerNorm) else "rms", unit_offset=gemma
        )

    def block(i: int) -> Block:
        at = f"{layers}.{i}"
        q, k, v, o = (Projection(path=f"{at}.self_attn.{name}_proj") for name in "qkvo")
        attn = Attention(
            path=f"{at}.self_attn",
            q=q,
            k=k,
            v=v,
            o=o,
            n_heads=n,
            n_kv_heads=n_kv,
            d_head=d_head,
            rotary=True,
            interface=True,
        )
        mlp = MLP(
            path=f"{at}.mlp", up=f"{at}.mlp.up_proj", down=f"{at}.mlp.down_proj", gate=f"{at}.mlp.gate_proj"
        )
        before, after = f"{at}.input_layernorm", f"{at}.post_attention_layernorm"
        mlp_before, mlp_after = f"{at}.pre_feedforward_layernorm", f"{at}.post_feedforward_layernorm"
        if mlp_after in paths:  # Gemma 2/3 (four norms) and OLMo 2 (two, both behind the layers)
            return Block(
                path=at,
                attn=attn,
                mlp=mlp,
                placement="sandwich",
                attn_write=after,
                mlp_write=mlp_after,
                ln1=norm(before) if before in paths else None,
                ln2=norm(mlp_before) if mlp_before in paths else None,
            )
        return Block(path=at, attn=attn, mlp=mlp, ln1=norm(before), ln2=norm(after))

    return Anatomy(
        d_model=d,
        blocks=tuple(block(i) for i in range(config.num_hidden_layers)),
        embed=_join(trunk, "embed_tokens"),
        ln_final=norm(_join(trunk, "norm")),
        unembed="lm_head" if "lm_head" in paths else None,
        family="llama",
        chained=True,
    )
