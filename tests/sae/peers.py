"""Run by the interpreter of an environment that has sae_lens, sparsify or dictionary_learning; never by ours.

``peers.py LIBRARY JOBS``: each job is a folder, a file of rows, a file for the answer, and perhaps a case. With a case
the library makes a coder and saves it into the folder with its own writer. Then the library's own loader reads the
folder, and codes and rows of its own encode and decode are written. Rows and answers are safetensors.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def jolted(module: Any, names: tuple[str, ...] = ("threshold",)) -> Any:
    """Nothing left at 0; thresholds positive."""
    g = torch.Generator().manual_seed(4)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and value.ndim:
            value.add_(0.3 * torch.randn(value.shape, generator=g))
            if name in names:
                value.abs_()
    return module


def dense(codes: Any, width: int) -> Tensor:
    """sparsify answers with places and values."""
    out = torch.zeros(len(codes.top_acts), width)
    return out.scatter(1, codes.top_indices, codes.top_acts)


def answer(library: str, folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    if library == "sae_lens":
        from sae_lens import SAE

        coder = SAE.load_from_disk(folder)
        return coder.encode(x), coder(x)
    if library == "sparsify":
        from sparsify import SparseCoder

        coder = SparseCoder.load_from_disk(folder)
        return dense(coder.encode(x), coder.num_latents), coder(x).sae_out
    from dictionary_learning.utils import load_dictionary

    coder, _ = load_dictionary(str(folder), "cpu")
    codes = coder.encode(x)
    return codes, coder.decode(codes)


def make(library: str, case: str, folder: Path) -> None:
    torch.manual_seed(0)
    if library == "sae_lens":
        from sae_lens.registry import get_sae_class, get_sae_training_class

        name, _, training = case.partition("/")
        cls, config = get_sae_training_class(name) if training else get_sae_class(name)
        sizes: dict[str, Any] = {"d_in": 12, "d_sae": 48}
        sizes |= {"k": 6} if "topk" in name else {}
        sizes |= {"d_out": 8, "apply_b_dec_to_input": False} if "transcoder" in name else {}
        sizes |= {"matryoshka_widths": [12, 24, 48]} if "matryoshka" in name else {}
        sizes |= {"l1_coefficient": 1.0} if training and name in ("standard", "gated") else {}
        coder = jolted(cls(config(**sizes)))
        if hasattr(coder, "topk_threshold"):
            coder.topk_threshold.fill_(0.5)
        (coder.save_inference_model if training else coder.save_model)(folder)
        return
    if library == "sparsify":
        from sparsify import SparseCoder, SparseCoderConfig

        flags = dict.fromkeys(case.split("+")[1:], True)
        coder = SparseCoder(
            12, SparseCoderConfig(activation=case.split("+")[0], num_latents=48, k=6, **flags)
        )
        jolted(coder).save_to_disk(folder)
        return
    import dictionary_learning as dl
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made = {
        "AutoEncoder": lambda: dl.AutoEncoder(12, 48),
        "AutoEncoderNew": lambda: dl.dictionary.AutoEncoderNew(12, 48),
        "GatedAutoEncoder": lambda: dl.GatedAutoEncoder(12, 48),
        "JumpReluAutoEncoder": lambda: dl.JumpReluAutoEncoder(12, 48),
        "AutoEncoderTopK": lambda: AutoEncoderTopK(12, 48, 6),
        "BatchTopKSAE": lambda: BatchTopKSAE(12, 48, 6),
        "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(12, 48, 6, [16, 32]),
    }
    coder = jolted(made[case]())
    if hasattr(coder, "threshold") and not coder.threshold.ndim:
        coder.threshold.fill_(0.5)
    folder.mkdir(parents=True)
    torch.save(coder.state_dict(), folder / "ae.pt")
    trainer = {"dict_class": case, "k": 6} if "TopK" in case else {"dict_class": case}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))


if __name__ == "__main__":
    library = sys.argv[1]
    for folder, rows, out, case in json.loads(Path(sys.argv[2]).read_text()):
        if case is not None:
            make(library, case, Path(folder))
        with torch.no_grad():
            codes, written = answer(library, Path(folder), load_file(rows)["x"])
        save_file({"codes": codes.contiguous(), "rows": written.contiguous()}, out)
