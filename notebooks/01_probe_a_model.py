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
# # Probe a model
# What is encoded where, how accessibly, and what is left when it is erased. The model is `mini`, which ships with the
# toolkit and reads a language in which every token's labels are known. Put your own model and labels in their place.

# %%
import interp
import probes

model = interp.load("mini")
text = interp.toys.embedded("mini").sample(10_000, seed=0)
print(text.tokens.strings[0][:20])
print([interp.toys.language.LABELS["pos"][i] if i >= 0 else None for i in text.labels["pos"][0, :20]])

# %% [markdown]
# One call: every layer, three splits by whole texts, a control task (a random label for each word type), shuffled
# labels, and the same network untrained.

# %%
found = probes.sweep(
    model,
    {name: text.labels[name] for name in ("pos", "entity", "agreement")},
    ["hook_embed", "blocks.*.hook_resid_post"],
    tokens=text.tokens,
    probe="lda",
    max_samples=3000,
    extras=["random_init"],
)
found.table()

# %% [markdown]
# Part of speech is there from the start and so is its selectivity small: the word type says it. The number of the
# subject that still waits for its verb (`agreement`) needs the context and grows with depth.

# %%
found["agreement"].plot()

# %% [markdown]
# Is it gone when it is erased? LEACE takes out all that a linear probe could use, with the least change; the audit fits
# a new probe to what is left.

# %%
site = "blocks.3.hook_resid_post"
acts = model.capture(text.tokens, site, batch_size=64)
label = text.labels["agreement"][text.tokens.mask]
known = label >= 0
rows, z = acts.rows(site)[known].double(), label[known]
eraser = probes.leace(rows, z)
print(eraser)

# %%
before, after = (
    probes.LDAProbe().fit(x.numpy(), z.numpy()).score(x.numpy(), z.numpy()) for x in (rows, eraser(rows))
)
larger = max(float(z.float().mean()), 1 - float(z.float().mean()))
print(f"a probe on its own rows: {before:.3f} before, {after:.3f} after; the larger class has {larger:.3f}")

# %% [markdown]
# Seen in the text: which way a probe leans, plural (blue) or singular (orange), at the tokens whose subject still waits
# for its verb; what the label says there; and what the same probe reads after the erasure.

# %%
import torch

probe = probes.LDAProbe().fit(rows.numpy(), z.numpy())
waiting = (text.labels["agreement"] >= 0) & text.tokens.mask
leaning = {}
for name, x in {"the probe": rows, "after erasure": eraser(rows)}.items():
    leaning[name] = torch.full(waiting.shape, float("nan"))
    leaning[name][waiting] = torch.from_numpy(probe.decision_function(x.numpy())).float()
leaning["the label"] = torch.where(waiting, 30.0 * text.labels["agreement"] - 15, float("nan"))
most = waiting.sum(1).argsort(descending=True)[:4]
interp.views.colored_tokens(text.tokens.select(most), {k: v[most] for k, v in leaning.items()}, limit=15)

# %%
found["entity"].plot()

# %% [markdown]
# This does not show that the model uses what a probe finds: `probes.causal_use` asks that by pushing along the probe's
# direction beside random directions of equal length.
