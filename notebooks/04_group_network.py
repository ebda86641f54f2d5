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
# # Reverse-engineer a group network
# A small network learns to multiply in a group, first by heart and then by representation theory. Every measure here
# can be checked against mathematics.

# %%
import interp
from circuits.groups import reverse_engineer
from interp.toys import Group, grok

group = Group("D15")
group.verify()
print(group.order, [(irrep.label, irrep.dim) for irrep in group.irreps()])

# %% [markdown]
# Train one live: part of the table is shown (`run.card` says how much), the rest is the test.

# %%
run = grok("D15", seed=0)
run.plot()

# %% [markdown]
# Take it apart: which irreps do its logits use, beside what a lookup table of the same accuracy would have by chance?

# %%
found = reverse_engineer(run)
print(found.key)
found.to_frame()

# %%
print(found.losses)
print(found.ablations)

# %% [markdown]
# The excluded loss (the key irreps taken out) is high and the restricted loss (they alone) is low: the algorithm is in
# these few irreps. A network that ships with the toolkit answers to the same call.

# %%
shipped = reverse_engineer(interp.load("group:S4"), "S4")
print(shipped.key)
shipped.plot()

# %% [markdown]
# This does not show how the hidden layer multiplies the two factors (`found.neurons`, `found.clock` and
# `found.fourier` look there), nor that networks of another size or word choose the same irreps.
