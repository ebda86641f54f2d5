# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Geometry of representations: eight findings that need no download
# Each cell trains or builds what it needs, measures it, and draws one figure beside its chance level or its control.
# About a minute on one core.

# %%
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from interp import metrics
from interp.plots import Series, heatmap, lines, phases, profile

data = load_digits()
images, digits = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
images = images - images.mean(0)
seen, unseen = slice(0, 1200), slice(1200, None)


def perceptron(*widths: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [part for d in zip(widths, widths[1:], strict=False) for part in (nn.Linear(*d), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def train(
    net: nn.Sequential, steps: int, *, seed: int = 0, lr: float = 1e-3, decay: float = 1e-4
) -> nn.Sequential:
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(1200, (128,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images[rows]), digits[rows]).backward()
        optimiser.step()
    return net


# %% [markdown]
# ## Before any training
# Tokens of one text grow alike with depth in a network of random weights, and the last token of a long text stops
# seeing the rest unless positions tell tokens apart: both belong to the architecture.

# %%
torch.manual_seed(0)
config = GPT2Config(
    n_layer=12, n_embd=384, n_head=6, n_positions=1024, vocab_size=500, bos_token_id=0, eos_token_id=0
)
untrained = interp.load(GPT2LMHeadModel(config).eval())
text = torch.randint(500, (12, 64), generator=torch.Generator().manual_seed(1))
alike = metrics.layer_profile(untrained, text, quantities=["token homogeneity"])["token homogeneity"]
assert (np.diff(alike.value) > 0).all()
profile(
    alike.ticks[0],
    {"random GPT-2": (alike.value, alike.stderr)},
    title="Cosine of two tokens of one text (95%)",
)

# %%
blind = GPT2LMHeadModel(config).eval()
nn.init.zeros_(blind.transformer.wpe.weight)
lengths, texts = (
    [4, 16, 64, 256, 1000],
    torch.randint(500, (2, 1001), generator=torch.Generator().manual_seed(2)),
)
gaps = {
    name: metrics.last_token_gap(model, texts, lengths=lengths)
    for name, model in (("with positions", untrained), ("without", interp.load(blind)))
}
print(
    {name: gap.provenance["lost"] for name, gap in gaps.items()}
)  # the length from which a float type sees no gap
series = [Series(name=name, y=np.log10(np.asarray(gap.value))) for name, gap in gaps.items()]
lines(
    lengths,
    series,
    title="Last token of s and of s with it repeated",
    x_title="length of s",
    y_title="log10 L1 gap",
)

# %% [markdown]
# ## What fills a representation is not what it is used for
# One network answers an easy question (a bit) and a hard one (the parity of three) without a mistake.

# %%
runs = [interp.toys.complexity_bias.train_biased(seed=seed) for seed in range(3)]
shares = np.array([[run.share["easy"], run.share["hard"]] for run in runs])
assert all(min(run.accuracy.values()) > 0.99 for run in runs)
rows = [f"seed {i}, both answered" for i in range(3)]
heatmap(
    shares, rows=rows, columns=["bit", "parity of three"], title="Share of the hidden variance, by question"
)

# %% [markdown]
# ## Networks that read digits
# Over training, classes collapse. Two seeds hold the same layers up to rotation, not neuron by neuron; and their
# weights line up once the units are matched.

# %%
net, epochs, collapse = perceptron(64, 128, 128, 10, seed=0), [0], []
for steps in (0, 10, 30, 60, 120, 300, 600):
    train(net, steps, lr=3e-3, decay=5e-3, seed=steps)
    epochs.append(epochs[-1] + steps)
    with torch.no_grad():
        hidden = net[:-1](images)
    measures = metrics.neural_collapse(hidden[seen], digits[seen], weight=net[-1].weight, bias=net[-1].bias)
    distance = metrics.class_distance_variance(hidden[unseen], digits[unseen])
    collapse.append([*measures.value, distance.value])
names = [*measures.ticks[0], "CDNV, unseen digits"]
curves = {
    name: np.array(collapse)[:, i]
    for i, name in enumerate(names)
    if name in ("NC1 ratio", "NC2", "NC3", names[-1])
}
phases(epochs[1:], curves, title="Neural collapse over training (0 at collapse)")


# %%
def convolutions(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    shapes = ((1, 16, 1), (16, 32, 2), (32, 64, 2))
    parts = [p for a, b, s in shapes for p in (nn.Conv2d(a, b, 3, stride=s, padding=1), nn.ReLU())]
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), *parts, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def activations(net: nn.Sequential, x: torch.Tensor) -> dict[str, torch.Tensor]:
    held = {}
    with torch.no_grad():
        for part in net:
            x = part(x)
            if isinstance(part, nn.ReLU):
                held[f"layer {len(held)}"] = x.flatten(1)
    return held


a, b = (activations(train(convolutions(seed), 80, seed=seed, lr=3e-3), images[unseen]) for seed in (0, 1))
between = metrics.cka_matrix(a, b)
matched = metrics.match_neurons(a["layer 3"], b["layer 3"]).value
heatmap(
    between.value, rows=[f"seed 0, {k}" for k in a], columns=[f"seed 1, {k}" for k in b], spread=between.stderr,
    title=f"CKA finds the same layer in another seed; matched neurons of the last correlate {matched:.2f}",
)  # fmt: skip

# %%
x = a["layer 3"].double()
x = x[:, x.std(0) > 0]  # units that never fire have no correlation to be matched by
order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(3))
turn = torch.linalg.qr(
    torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(4)).double()
)[0]
planted, found = x[:, order], metrics.match_neurons(x, x[:, order])
right = float((order[torch.tensor(found.provenance["match"])] == torch.arange(len(order))).double().mean())
table = [[float(f(x, z).value) for f in (metrics.cka, metrics.match_neurons)] for z in (planted, x @ turn)]
heatmap(
    np.array(table), rows=["units permuted", "rotated"], columns=["CKA", "matched correlation"], span=(0, 1),
    title=f"A planted permutation is recovered ({right:.0%} of its units); CKA stays 1 under any rotation",
)  # fmt: skip

# %%
first, second = (train(perceptron(64, 512, 10, seed=s), 250, seed=s) for s in (0, 5))
w, v = ({name: p.detach() for name, p in net.named_parameters()} for net in (first, second))
units = metrics.mlp_units(first)


def loss(weights: dict[str, torch.Tensor]) -> float:
    return float(
        nn.functional.cross_entropy(
            torch.func.functional_call(first, weights, (images[unseen],)), digits[unseen]
        )
    )


straight = metrics.loss_barrier(loss, w, v)
basin = metrics.loss_barrier(loss, w, metrics.permuted(v, units, metrics.match_weights(w, v, units)))
barriers = f"{straight.provenance['barrier']:.3f} to {basin.provenance['barrier']:.3f}"
series = [Series(name="as trained", y=straight.value), Series(name="units matched", y=basin.value)]
lines(
    straight.ticks[0],
    series,
    title=f"Barrier {barriers} nats",
    x_title="from one network to the other",
    y_title="loss",
)

# %% [markdown]
# ## Over training
# A small group network, trained here; `interp.toys.mini_checkpoints()` gives the same call the language model's.

# %%
group = interp.toys.Group("C23")
run = interp.toys.train(
    group, seed=0, recipe=interp.toys.recipe_for("C23", epochs=600, until_loss=0), keep_every=50
)
table = torch.cartesian_prod(torch.arange(23), torch.arange(23))
inputs = torch.cat([table, torch.full((529, 1), 23)], 1)
labels = torch.full_like(inputs, -1)
labels[:, -1] = table.sum(1) % 23
steps = {c.epoch: run.at(c) for c in run.checkpoints}
site = "blocks.0.hook_resid_post"
asked = ["RankMe", "alpha-ReQ", "NC1 ratio"]
over = metrics.training_profile(steps, inputs, site, positions="last", labels=labels, quantities=asked)
curves = {name: over[name].value[:, 0] for name in asked}
frame = run.to_frame()
curves["error on unseen pairs"] = np.interp(
    list(steps), [0, *frame["epoch"]], [1, *1 - frame["test_accuracy"]]
)
phases(
    list(steps),
    curves,
    named=metrics.training_phases(over).provenance["phase"],
    title="C23 groks: rank, decay, collapse",
)

# %% [markdown]
# What this does not show: that any of these numbers causes or explains what a network can do; rank, likeness and
# collapse are read off the variance of a few thousand rows, and a direction of little variance may carry the work.
