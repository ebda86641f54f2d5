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
# # Your own model
# A plain `nn.Module`, a Hugging Face model and nnsight answer to the same calls.

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn

import interp
import probes

# %% [markdown]
# ## A plain module
# Every module path is a site. No class to inherit from, no rewriting: hooks live for one pass.

# %%
digits = load_digits()
x = torch.tensor(digits.data / 16.0, dtype=torch.float32)
y = torch.tensor(digits.target)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
for _ in range(150):
    optimiser.zero_grad()
    nn.functional.cross_entropy(net(x[:1200]), y[:1200]).backward()
    optimiser.step()
model = interp.load(net)
print(model, [str(site) for site in model.sites])

# %%
acts = model.capture(x, ["1", "3"])
print(interp.metrics.cka(acts["1"], acts["3"]))
logits = model.logits(x, edits=[interp.ablate("1", neuron=[0, 1, 2], how="zero")])
print("accuracy without three neurons:", float((logits.argmax(-1) == y).float().mean()))

# %%
found = probes.sweep(
    {"input": x, "1": acts["1"], "3": acts["3"]}, y, ["input", "1", "3"], groups="row", types=y
)
found.plot()

# %% [markdown]
# ## A Hugging Face model
# From a folder, a hub name, or an object that you hold. Sites have the names of TransformerLens, whatever the family.

# %%
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    bos_token_id=1,
    eos_token_id=2,
)
llama = interp.load(LlamaForCausalLM(config))
ids = torch.randint(3, 100, (16, 24), generator=torch.Generator().manual_seed(0))
print(llama.capture(ids, "blocks.2.attn.hook_pattern"))

# %% [markdown]
# ## nnsight
# Wrapped, the same model runs as an nnsight trace; `remote=True` sends it to NDIF with your key.

# %%
import nnsight

wrapped = interp.load(nnsight.NNsight(LlamaForCausalLM(config)))
print(wrapped.backend, wrapped.logits(ids).shape)

# %%
rows = {
    site: llama.capture(ids, site).rows(site) for site in [f"blocks.{i}.hook_resid_post" for i in range(4)]
}
interp.metrics.cka_matrix(rows).plot()

# %% [markdown]
# These networks are small or untrained, so the figures do not show anything about language; they show that the calls
# work on a model that the toolkit has never seen.
