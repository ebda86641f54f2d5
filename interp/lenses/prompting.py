"""Learned prompt: transplant one hidden state behind a trained soft prompt and let the model itself say what follows.

References
----------
Pal et al. 2023, "Future lens", sections 3.2 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import Edit, replace
from interp.errors import InputError
from interp.lenses.readout import Readout
from interp.metrics.baselines import Baseline, baselined, beside
from interp.metrics.rows import clustered
from interp.models.inputs import as_tokens
from interp.results import Result
from interp.tokens import Tokens

__all__ = ["future_prompt"]


def future_prompt(
    model: Any,
    tokens: Any,
    site: Any,
    *,
    ahead: int = 1,
    how: Literal["in_turn", "at_once"] = "in_turn",
    n_prompt: int = 10,
    steps: int = 100,
    batch_size: int = 64,
    lr: float = 0.1,
    held_out: float = 0.25,
    baseline: Baseline = None,
    seed: int = 0,
) -> Result:
    """Precision at 1 of the model's own token ``ahead`` later, read by a learned prompt from the stream at one site.

    A prompt of ``n_prompt`` trained embeddings is run; at its last position the stream at ``site`` is replaced by the
    hidden state in question, and the network's later layers do the reading.

    Parameters
    ----------
    tokens
        Texts; whole ones are held out. States count where the text went on as the model had said for the ``ahead``
        tokens between, so that the answer follows from the state alone.
    site
        A stream site, such as ``"blocks.3.hook_resid_post"``.
    how
        ``"in_turn"`` (as published): from the state's position the model continues greedily, its own tokens fed back,
        and its token after ``ahead`` of them is the prediction. ``"at_once"``: the logits at the state's own position
        are the prediction, so that the prompt must turn the network into one that skips tokens.
    n_prompt, steps, batch_size, lr, seed
        Length of the prompt, which begins as the beginning of a text, and its training (Adam, cross-entropy, with the
        model's own tokens fed in turn); ``lr`` in units of the embeddings' root mean square, falling linearly to 0.
    baseline
        ``"random_init"`` or ``"shuffled_tokens"``: the precision there, with a prompt of its own, stands in
        ``.chance``, and that of other tokens' states in ``.provenance["others"]``. Few texts go on as such a model
        says: use ``ahead=0`` or many texts.

    Returns
    -------
    Result
        Error over held-out texts. ``.chance``: the same trained prompt with states of other tokens put in.
        ``.provenance["tokens_alone"]``: the states of others, but the right tokens fed in between: what those tokens
        tell without the state. ``.provenance["losses"]``: nats a token, step by step.

    Notes
    -----
    Cost: a forward and a backward pass of ``n_prompt + ahead`` tokens for each state and step.
    """
    given, _ = as_tokens(model, tokens), Readout.of(model)
    (place,) = model.find(site)
    if how not in ("in_turn", "at_once"):
        raise InputError(f"how={how!r}; it is 'in_turn' or 'at_once'")
    if n_prompt < 2 or ahead < 0 or given.ids.shape[1] <= max(ahead, n_prompt - 1):
        raise InputError(
            f"n_prompt = {n_prompt} (at least 2), ahead = {ahead} in {given.ids.shape[1]} tokens"
        )
    states = _states(model, given, place, ahead)
    generator = torch.Generator().manual_seed(seed)
    test_texts = torch.randperm(len(given), generator=generator)[: max(1, round(held_out * len(given)))]
    test = torch.isin(states.text, test_texts)
    fit, held = torch.nonzero(~test).flatten(), torch.nonzero(test).flatten()
    if len(fit) == 0 or len(held) < 2:
        raise InputError(
            f"{len(fit)} states to fit on and {len(held)} to test: give more texts, or such as the model predicts"
        )
    reader = _Reader(model, place, how, _start(model, given, n_prompt, int(states.text[fit[0]])))
    losses = reader.train(states, fit, steps=steps, batch_size=batch_size, lr=lr, generator=generator)
    other = held[torch.randperm(len(held), generator=generator)]
    goal = states.said[held, -1]
    hit = (reader.say(states.vectors[held], states.said[held]) == goal).double()
    chance = reader.say(states.vectors[other], states.said[other]) == goal
    forced = reader.say(states.vectors[other], states.said[held], forced=True) == goal
    made = Result(
        name=f"future lens by prompt, {ahead} ahead", value=float(hit.mean()), n=len(held),
        stderr=clustered(hit.cpu(), groups=states.text[held].cpu()),
        chance=float(chance.double().mean()),
        convention=f"precision@1 at {place} through {n_prompt} learned embeddings, {how.replace('_', ' ')};"
        " chance: other tokens' states",
        provenance={"others": float(chance.double().mean()), "tokens_alone": float(forced.double().mean()),
                    "losses": losses, "steps": steps, "lr": lr,
                    "seed": seed, "model": model.name, "site": str(place)},
    )  # fmt: skip
    if baseline is None:
        return made
    network, mixed = baselined(model, given, baseline, seed=seed)
    options: Any = {"ahead": ahead, "how": how, "n_prompt": n_prompt, "steps": steps, "batch_size": batch_size,
                    "lr": lr, "held_out": held_out, "seed": seed}  # fmt: skip
    return beside(made, future_prompt(network, mixed, site, **options), baseline)


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    """Hidden states, what the model says behind each in turn, and the text that each comes from."""

    vectors: Float[Tensor, "state d_model"]
    said: Int[Tensor, "state turn"]
    text: Int[Tensor, "state"]


def _states(model: Any, given: Tokens, place: Any, ahead: int) -> _States:
    """The states behind which the text went on as the model said, for ``ahead`` tokens."""
    acts = model.capture(given, place, batch_size=16)
    best = model.logits(given, batch_size=16).argmax(-1)
    ids, mask = given.ids.to(best.device), given.mask.to(best.device)
    end = ids.shape[1] - ahead
    said = torch.stack([best[:, k : end + k] for k in range(ahead + 1)], -1)
    kept = mask[:, :end] & mask[:, ahead:]
    for k in range(ahead):
        kept &= ids[:, k + 1 : end + k + 1] == said[..., k]
    return _States(acts[place][:, :end][kept], said[kept], torch.nonzero(kept)[:, 0].cpu())


def _start(model: Any, given: Tokens, n_prompt: int, row: int) -> Tensor:
    """The embeddings of the first tokens of a text: a prompt of a kind that the model knows."""
    ids = Tokens.full(given.ids[row : row + 1, :n_prompt])
    return model.capture(ids, "hook_embed")["hook_embed"][0].clone()


class _Reader:
    """A model behind a prompt, and the training of that prompt."""

    def __init__(self, model: Any, place: Any, how: str, prompt: Tensor) -> None:
        self.model, self.place, self.how, self.prompt = model, place, how, prompt

    def run(self, vectors: Tensor, fed: Tensor) -> tuple[Tokens, list[Edit]]:
        """Tokens (zeros where the prompt stands) and the edits that put prompt and states in."""
        n, size, length = len(self.prompt), len(vectors), len(self.prompt) + fed.shape[1]
        ids = torch.cat([torch.zeros(size, n, dtype=torch.long), fed.cpu()], 1)
        table = self.prompt.new_zeros(length, self.prompt.shape[1])
        table[:n] = self.prompt
        return Tokens.full(ids), [
            replace("hook_embed", table.expand(size, -1, -1), position=list(range(n))),
            replace(self.place, vectors[:, None].expand(-1, length, -1), position=n - 1),
        ]

    def train(
        self,
        states: _States,
        fit: Tensor,
        *,
        steps: int,
        batch_size: int,
        lr: float,
        generator: torch.Generator,
    ) -> list[float]:
        """Adam on the prompt; the loss of each step, in nats a token."""
        n, rate = len(self.prompt), lr * float(self.prompt.square().mean().sqrt())
        first, second, losses = torch.zeros_like(self.prompt), torch.zeros_like(self.prompt), []
        for step in range(1, steps + 1):
            chosen = fit[torch.randint(len(fit), (batch_size,), generator=generator)]
            said = states.said[chosen]
            goal = said if self.how == "in_turn" else said[:, -1:]
            tokens, edits = self.run(states.vectors[chosen], goal[:, :-1])

            def score(logits: Tensor, goal: Tensor = goal) -> Tensor:
                each = logits[:, n - 1 :].log_softmax(-1).gather(-1, goal[..., None])[..., 0].mean(1)
                losses.append(-float(each.detach().mean()))
                return each

            _, grads = self.model.gradients(tokens, score, "hook_embed", edits=edits)
            gradient = -grads["hook_embed"][:, :n].mean(0)
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient.square()
            move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            self.prompt = self.prompt - rate * (1 - (step - 1) / steps) * move
        return losses

    def say(
        self, vectors: Tensor, said: Tensor, *, forced: bool = False, chunk: int = 256
    ) -> Int[Tensor, "state"]:
        """The prediction from each state: after the tokens the model says itself, or after those of ``said``."""
        out = []
        turns = said.shape[1] if self.how == "in_turn" else 1
        for part, right in zip(vectors.split(chunk), said.split(chunk), strict=True):
            fed, best = right[:, :0], right[:, 0]
            for turn in range(turns):
                tokens, edits = self.run(part, fed)
                best = self.model.logits(tokens, edits=edits)[:, -1].argmax(-1)
                fed = torch.cat([fed, (right[:, turn] if forced else best)[:, None]], 1)
            out.append(best)
        return torch.cat(out)
