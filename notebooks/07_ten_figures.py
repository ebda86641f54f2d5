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
# # Studies from the literature in ten figures
# Each cell is one question of the field, asked of the models that ship with the toolkit: a minute on a laptop.

# %%
import plotly.express as px
import torch

import circuits
import interp
import probes
from interp import lenses, metrics
from interp.toys import grok
from interp.toys.exam import repeats

model = interp.load("mini")
text = interp.toys.embedded("mini").sample(6000, seed=0)

# %%
# 1. Induction heads (Olsson et al. 2022): where each head looks on a sequence that is said twice.
atlas = circuits.head_atlas(model, ids=repeats(40))
px.imshow(
    atlas.value[atlas.ticks[0].index("induction")],
    title="attention to what followed last time",
    labels={"x": "head", "y": "layer"},
)

# %%
# 2. The logit lens (nostalgebraist 2020): what each layer would say.
prompt = model.tokens("When Alice and Bob went to the park, Bob gave the ball to")
lenses.logit_lens(model, prompt).figure(0)

# %%
# 3. Name movers (Wang et al. 2022): patch each head's output from prompts with other names.
task = interp.tasks.load("ioi", model=model, split="heldout", n=32)
circuits.patch_sweep(model, task).plot()

# %%
# 4. A circuit and its faithfulness (Hanna et al. 2024), beside random circuits.
graph = circuits.attribute(model, task, method="eap-ig", steps=5)
circuits.evaluate(model, graph, task).plot()

# %%
# 5. Superposition (Elhage et al. 2022): five features in two dimensions.
toy = interp.toys.embedded("superposition:pentagon").module
d = toy.directions.detach()
px.scatter(x=d[:, 0], y=d[:, 1], title="five directions in a plane").update_yaxes(scaleanchor="x")

# %%
# 6. Grokking (Power et al. 2022; Chughtai et al. 2023): memory first, the algorithm later.
grok("D15", seed=0).plot()

# %%
# 7. Days of the week (Engels et al. 2024): their embeddings in the plane of two components.
days = interp.toys.language.LABELS["day"]
table = model.module.get_input_embeddings().weight.detach()
points = table[model.tokens(" ".join(days), prepend_bos=False).ids[0]]
u, s, _ = torch.linalg.svd(points - points.mean(0), full_matrices=False)
px.scatter(x=u[:, 0] * s[0], y=u[:, 1] * s[1], text=list(days), title="days").update_traces(
    textposition="top center"
)

# %%
# 8. The rank of representations (Garrido et al. 2023) over depth, beside the untrained network.
metrics.layer_profile(model, text.tokens, baseline="random_init")["RankMe"].plot()

# %%
# 9. Probes with selectivity (Hewitt and Liang 2019): which participant a word refers to.
probes.sweep(
    model, text.labels["entity"], ["hook_embed", "blocks.*.hook_resid_post"], tokens=text.tokens, probe="lda"
).plot()

# %%
# 10. What moves from token to token (Geva et al. 2023), in prompts of one form.
first = task.facts[0]["template"]
circuits.token_flow(model, task.select(lambda fact: fact["template"] == first)).plot()

# %% [markdown]
# Figures of one small model do not show that the same holds for large ones; each cites the study whose claim it
# illustrates.
