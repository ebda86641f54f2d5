"""The libraries themselves read what we write, and we read what they write; codes and rows are the same.

They cannot be installed beside us (their pins exclude our versions), so they live in an environment of their own whose
interpreter INTERP_PEERS_PYTHON names: ``pip install --no-deps sae-lens dictionary-learning eai-sparsify`` and what
they import.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sae

PYTHON = os.environ.get("INTERP_PEERS_PYTHON", "")
SCRIPT = Path(__file__).with_name("peers.py")
WRITTEN = {
    "sae_lens": [
        ("saelens", "sae", kind)
        for kind in (
            "relu",
            "panneal",
            "topk",
            "abstopk",
            "batchtopk",
            "matryoshka",
            "jumprelu",
            "gated",
            "pursuit",
        )
    ]
    + [
        ("saelens", wiring, kind)
        for wiring in ("transcoder", "skip")
        for kind in ("relu", "batchtopk", "jumprelu")
    ]
    + [("saelens_legacy", "sae", kind) for kind in ("relu", "topk", "batchtopk", "jumprelu", "gated")],
    "sparsify": [
        ("sparsify", wiring, kind)
        for wiring in ("sae", "transcoder", "skip")
        for kind in ("topk", "groupmax")
    ],
    "dictionary_learning": [
        ("dictionary_learning", "sae", kind)
        for kind in ("relu", "panneal", "topk", "batchtopk", "matryoshka", "jumprelu", "gated")
    ],
}
MADE = {
    "sae_lens": [
        "standard", "topk", "abstopk", "jumprelu", "gated", "transcoder", "skip_transcoder", "jumprelu_transcoder",
        "jumprelu_skip_transcoder", "standard/training", "topk/training", "abstopk/training", "batchtopk/training",
        "matryoshka_batchtopk/training", "jumprelu/training", "gated/training",
    ],
    "sparsify": [
        activation + flags
        for activation in ("topk", "groupmax")
        for flags in ("", "+transcode", "+skip_connection", "+transcode+skip_connection")
    ],
    "dictionary_learning": [
        "AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
        "JumpReluAutoEncoder", "GatedAutoEncoder",
    ],
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="INTERP_PEERS_PYTHON names no interpreter with the other libraries"
    ),
]


def answers(
    library: str, place: Path, jobs: dict[str, str | None], x: Tensor
) -> dict[str, dict[str, Tensor]]:
    """What the library answers for the folder of each job: one process for all, for it takes long to import."""
    save_file({"x": x}, place / "x.safetensors")
    asked = [
        (str(place / name), str(place / "x.safetensors"), str(place / f"{name}.out"), case)
        for name, case in jobs.items()
    ]
    (place / "jobs.json").write_text(json.dumps(asked))
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "WANDB_MODE": "disabled"}
    ran = subprocess.run(
        [PYTHON, str(SCRIPT), library, str(place / "jobs.json")], capture_output=True, text=True, env=env
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {name: load_file(place / f"{name}.out") for name in jobs}


def compared(coder: sae.Coder, x: Tensor, theirs: dict[str, Tensor], case: str) -> None:
    with torch.no_grad():  # sums of 12 float32 terms of size 3
        for ours, name in ((coder.encode(x), "codes"), (coder(x), "rows")):
            told = f"{case}: {name} of the two"
            torch.testing.assert_close(
                ours, theirs[name], atol=1e-5, rtol=1e-5, msg=lambda e, t=told: f"{t}\n{e}"
            )
    assert 0 < float((theirs["codes"] != 0).float().mean()) < 1, case


@pytest.mark.parametrize("library", WRITTEN)
def test_the_library_gives_our_codes_from_our_files(tmp_path: Path, library: str) -> None:
    g = torch.Generator().manual_seed(1)
    made: dict[str, sae.Coder] = {}
    for format, wiring, kind in WRITTEN[library]:
        d_out = 8 if library == "sae_lens" and wiring != "sae" else 12
        coder = made[f"{format}-{wiring}-{kind}"] = sae.Coder(
            12, 48, 6, kind=kind, wiring=wiring, d_out=d_out
        )
        with torch.no_grad():
            for name, value in coder.state_dict().items():
                value.add_(0.3 * torch.randn(value.shape, generator=g))
                if name == "threshold":
                    value.abs_()
            if kind == "pursuit":
                coder.normalise_()
        sae.save(coder, tmp_path / f"{format}-{wiring}-{kind}", format=format)
    x = torch.randn(64, 12, generator=g)
    for name, theirs in answers(library, tmp_path, dict.fromkeys(made), x).items():
        compared(made[name], x, theirs, name)


@pytest.mark.parametrize("library", MADE)
def test_we_give_the_library_s_codes_from_its_files(tmp_path: Path, library: str) -> None:
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(2))
    jobs: dict[str, str | None] = {f"case-{i}": case for i, case in enumerate(MADE[library])}
    for name, theirs in answers(library, tmp_path, jobs, x).items():
        compared(sae.load(tmp_path / name), x, theirs, str(jobs[name]))
