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
# # Features of a sparse autoencoder
# Train a dictionary on the activations of a model, see how much it gives back, name its latents by labelled text, push
# along one, and carry it to another library. `mini` ships with the toolkit, and every token of its language is
# labelled; put your own model and texts in their place. Under a minute on one core.

# %%
import tempfile

import numpy as np
import torch

import interp
import sae
from interp.toys.language import LABELS

site = "blocks.1.hook_resid_post"
model = interp.load("mini")
text = interp.toys.embedded("mini").sample(40_000, seed=0)
fresh = interp.toys.embedded("mini").sample(12_000, seed=1)

# %% [markdown]
# Sixteen latents of 512 may be on at a time. `sae.train` takes rows from a tensor, a store on disk, or as here straight
# from the model while it reads; with `out=` it keeps metrics and checkpoints and can go on after a kill.

# %%
config = sae.TrainConfig(kind="topk", d_sae=512, k=16, steps=300, batch_size=1024)
run = sae.train(sae.model_rows(model, text.tokens, site), config)
run.plot()

# %% [markdown]
# On text it has not seen, beside simpler things of the same size: the number of interest is the distance to PCA and to
# a random dictionary, not the number itself. The loss through the model says whether what is lost matters to it.

# %%
judged = sae.evaluate(run.coder, fresh.tokens, model=model, site=site, skip_first=True)
judged.plot()

# %% [markdown]
# What do latents fire on? For every concept the latent that tells it best on half of the texts, judged on the other
# half; and the same for a dictionary of random directions, the control.

# %%
labels = {name: fresh.labels[name] for name in ("pos", "number", "tense", "sentiment", "day", "month")}
names = {name: LABELS[name] for name in labels}
codes = sae.encode(run.coder, model, fresh.tokens, site)
table = sae.label_latents(codes, labels, names=names)
random = sae.encode(sae.Coder(run.coder.d_in, 512, 16, seed=1), model, fresh.tokens, site)
control = sae.label_latents(random, labels, names=names)
table.to_frame().head(12)

# %% [markdown]
# One latent, pushed: the change of the next-token distribution, beside pushes of the same length along other latents.
# If the others do as much, its name says little about what it does.

# %%
latent = int(table.latent[int(np.argmax(table.value))])
alive = [int(j) for j in torch.as_tensor(judged.density).nonzero().squeeze(1)]
curve = sae.effect_curve(
    run.coder, model, fresh.tokens[:32], site, latent, amounts=[-8, -4, 4, 8], n_random=10, among=alive
)
curve.plot()

# %% [markdown]
# To another library and back, by file alone: the same codes. `interp sae convert` does this from the command line, and
# says by name what a format has no words for.

# %%
x = model.capture(fresh.tokens[:8], site).rows(site)
with tempfile.TemporaryDirectory() as folder:
    sae.save(run.coder, f"{folder}/saelens", format="saelens", provenance={"model": "mini", "site": site})
    again = sae.load(f"{folder}/saelens")
torch.testing.assert_close(run.coder.encode(x), again.encode(x))

# %%
order = np.argsort(-np.asarray(table.value))[:20]
assert table.concepts == control.concepts
interp.plots.lines(
    [table.concepts[i] for i in order],
    [
        interp.plots.Series(name="trained dictionary", y=np.asarray(table.value)[order]),
        interp.plots.Series(name="random directions", y=np.asarray(control.value)[order], baseline=True),
    ],
    title="The best latent for a concept, on texts it was not chosen by",
    y_title="AUROC",
)

# %% [markdown]
# What this does not show: that the model uses these latents; one may tell a concept that the model reads from
# elsewhere.
