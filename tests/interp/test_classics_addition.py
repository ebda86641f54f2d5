"""Two classics of addition: digit by digit in a transformer, and chained through a global workspace."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

import interp
from interp.errors import InputError
from interp.toys import digit_addition as digits
from interp.toys import global_workspace as workspace

# -- n-digit addition -----------------------------------------------------------------------------


def number(rows: torch.Tensor) -> list[int]:
    return [int("".join(map(str, row))) for row in rows.tolist()]


def draw(
    n: int, *, n_digits: int = 5, nines: float = 0.5, seed: int = 7
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return digits.problems(n, n_digits=n_digits, nines=nines, generator=generator)


def test_answers_are_the_sums_and_a_question_reads_as_it_is_written() -> None:
    a, b = draw(500)
    assert number(digits.answers(a, b)) == [x + y for x, y in zip(number(a), number(b), strict=True)]
    row = digits.questions(torch.tensor([[1, 2]]), torch.tensor([[9, 9]]))
    assert row.tolist() == [[1, 2, 10, 9, 9, 11, 1, 1, 1]]


def test_runs_and_carries_are_those_of_adding_by_hand() -> None:
    """Brute force over all two-digit additions, and the textbook cascade."""
    grid = torch.tensor(list(itertools.product(range(10), repeat=4)))
    a, b = grid[:, :2], grid[:, 2:]
    run, carry = digits.carries(a, b)
    units, tens = a[:, 1] + b[:, 1], a[:, 0] + b[:, 0]
    assert torch.equal(carry[:, 1], units // 10)
    assert torch.equal(carry[:, 0], (tens + units // 10) // 10)
    assert torch.equal(run[:, 1], (units == 9).long())
    assert torch.equal(run[:, 0], torch.where(tens == 9, 1 + run[:, 1], 0))
    assert not run[:, 2].any()
    assert not carry[:, 2].any()
    a, b = torch.tensor([[0, 4, 4, 4, 5]]), torch.tensor([[0, 5, 5, 5, 5]])
    run, carry = digits.carries(a, b)
    assert (run.tolist(), carry.tolist()) == ([[0, 3, 2, 1, 0, 0]], [[0, 1, 1, 1, 1, 0]])
    names = [digits.TASKS[i] for i in digits.tasks(a, b)[0].tolist()]
    assert names == ["BA", "US9+", "US9+", "US9", "UC1", "BA"]


def near_sighted(sight: int):
    """The right answer, but a carry is only looked for ``sight`` columns down: beyond that none is believed in."""

    def network(ids: torch.Tensor) -> torch.Tensor:
        n = (ids.shape[1] - 2) // 3
        a, b = ids[:, :n], ids[:, n + 1 : 2 * n + 1]
        run, carry = digits.carries(a, b)
        seen = torch.where(run < sight, carry, 0)
        base = torch.nn.functional.pad((a + b) % 10, (1, 0))
        logits = torch.zeros(*ids.shape, 12)
        logits[:, 2 * n + 1 :] = torch.nn.functional.one_hot((base + seen) % 10, 12).float()
        return logits

    return network


def test_a_network_that_sees_so_many_columns_fails_exactly_on_longer_runs() -> None:
    a, b = draw(3000)
    for sight in (1, 2, 3):
        found = digits.scores(near_sighted(sight), a, b)
        for run in range(5):
            assert found.by_run[run, 0] == 1
            assert found.by_run[run, 1] == (1 if run < sight else 0)
        assert found.n_by_run.sum() == 6 * 3000 == found.n_by_task.sum()
    whole = digits.scores(near_sighted(9), a, b)
    assert whole.exact == 1
    assert (whole.by_digit == 1).all()
    run, carry = digits.carries(a, b)
    unseen = ((run >= 3) & (carry == 1)).any(1)
    assert found.exact == pytest.approx(1 - float(unseen.double().mean()), abs=1e-12)


def test_each_answer_digit_is_computed_at_the_token_before_it() -> None:
    """One layer, briefly trained on two digits: what other positions hold changes nothing, what this one holds does."""
    recipe = digits.DigitRecipe(n_digits=2, d_model=48, d_mlp=192, steps=200, lr=5e-3, check_every=50)
    run = digits.train_digits(recipe=recipe)
    assert run.curve.shape == (4, 3)
    assert (run.curve[-1] < run.curve[0]).all()
    a, b = draw(200, n_digits=2, nines=0.2)
    found = digits.scores(run.module, a, b)
    assert found.by_digit[0] > 0.8  # a threshold, learned first
    table = digits.ablations(run.module, a, b)
    assert table.components == ("a0.h0", "a0.h1", "a0.h2", "m0")
    assert table.positions == ("D0", "D1", "+", "D'0", "D'1", "=", "A0", "A1")
    torch.testing.assert_close(table.whole, found.by_digit)
    lost = table.whole - table.by_position
    own = torch.zeros(8, 3, dtype=torch.bool)
    own[[5, 6, 7], [0, 1, 2]] = True
    assert (lost[:, ~own] == 0).all()
    assert (lost[3][own] > 0.05).all()  # without the MLP, at the token before it, every digit suffers
    assert {position for _, position in table.useful} <= {"=", "A0", "A1"}
    assert table.to_frame().shape == (5, 6)
    assert len(table.plot().data) == 1
    with pytest.raises(InputError, match="enriched and nines are shares"):
        digits.DigitRecipe(nines=2)


def test_training_is_deterministic_and_order_of_learning_is_read_off_the_curve() -> None:
    recipe = digits.DigitRecipe(n_digits=2, d_model=12, d_mlp=24, steps=10, check_every=5)
    first, second = (digits.train_digits(seed=3, recipe=recipe) for _ in range(2))
    assert torch.equal(first.curve, second.curve)
    assert not torch.equal(first.curve, digits.train_digits(seed=4, recipe=recipe).curve)
    curve = torch.tensor([[2.0, 0.01], [0.01, 0.01], [0.2, 0.01], [0.01, 0.01]], dtype=torch.float64)
    assert dataclasses.replace(first, curve=curve).order_of_learning() == [3, 0]


@pytest.mark.slow
def test_columns_are_learned_and_the_cascade_is_not() -> None:
    """The paper's headline with 5 digits: base sums and carries right, one head for the carry, long runs guessed."""
    run = digits.train_digits(seed=0)
    plain = draw(4000, nines=0.0)
    assert digits.scores(run.module, *plain).exact > 0.85
    a, b = draw(8000)
    found = digits.scores(run.module, a, b)
    told = found.by_run.mean(1)  # 1: always known whether a carry comes; 1/2: guessed
    assert told[0] > 0.99
    assert told[1] > 0.85
    assert told[2] < 0.8
    assert found.exact < 0.7
    # the answer's digits are learned one by one, the leading one first
    order = run.order_of_learning()
    assert order[0] == min(order)
    assert len(set(order)) >= 4
    # heads divide the work: two take the digits of the column itself, one those of the column below
    table = digits.ablations(run.module, a[:500], b[:500]).to_frame()
    lost = table.loc["whole"] - table.drop(index="whole")
    carry = (lost["UC1"] - lost["BA"]).drop(index="m0").idxmax()
    assert lost.loc[carry, "BA"] < 0.15 < 0.3 < lost.loc[carry, "UC1"]
    others = lost.drop(index=[carry, "m0"])
    assert (others["BA"] > 0.25).all()
    middle = torch.tensor([2, 3, 4])  # answer digits with a column below them
    attention = digits.attended_columns(run.module, a[:500], b[:500])[:, middle]
    own, below = (attention[:, torch.arange(3), middle - 1 + step].mean(1) for step in (0, 1))
    assert below[int(carry[-1])] > 0.8
    assert (own[[h for h in range(3) if h != int(carry[-1])]] > 0.8).all()


# -- chaining through a global workspace ----------------------------------------------------------


def test_sets_are_apart_and_every_operation_is_seen_in_training() -> None:
    sets = workspace.additions(10, largest=12, held_out=0.25, seed=3)
    parts = [sets.train, sets.interpolation, sets.extrapolation]
    assert sorted(map(tuple, torch.cat(parts).tolist())) == list(itertools.product(range(10), repeat=2))
    assert sets.extrapolation.sum(1).min() == 13
    assert set(sets.train[:, 1].tolist()) == set(range(10))
    assert {(a, 1) for a in range(10)} <= set(map(tuple, sets.train.tolist()))
    for largest, held_out in ((8, 0.25), (18, 0.25), (12, 0.9), (12, 0.0)):
        with pytest.raises(InputError, match="leave no set"):
            workspace.additions(10, largest=largest, held_out=held_out, seed=0)


def test_the_answer_s_distribution_is_the_sum_over_all_routes() -> None:
    """Brute force: every sequence of modules, with its probability and what it hands out."""
    module = workspace.Workspace(n_digits=3, d_hidden=4, generator=torch.Generator().manual_seed(0)).double()
    for a, b in itertools.product(range(3), repeat=2):
        gates = module.gates(torch.tensor([b]))[0].detach()
        expected = torch.zeros(5, dtype=torch.float64)
        for route in itertools.product(range(3), repeat=module.n_steps):
            held, probability = None, 1.0
            for step, choice in enumerate(route):
                probability *= float(gates[step, choice])
                if choice == 2:
                    break
                if choice == 0:
                    held = a if step == 0 else None
                elif held is not None:
                    held = held + 1 if held < 4 else None
            else:
                continue
            if held is not None:
                # routes that differ only behind the first output are one
                expected[held] += probability / 3 ** (module.n_steps - 1 - step)
        found = module(torch.tensor([[a, b]]))[0].detach()
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.fixture(scope="module")
def chained() -> workspace.WorkspaceRun:
    return workspace.train_workspace(seed=0, recipe=workspace.WorkspaceRecipe(steps=200))


def test_the_router_s_trace_is_the_program_of_addition(chained: workspace.WorkspaceRun) -> None:
    for b, route in chained.routes().items():
        assert route == ("input", *["increment"] * b, "output")
    trace = chained.module.trace(7, 8)  # a sum that no training pair has
    assert trace.workspace == (*range(7, 16), 15)
    assert trace.answer == 15
    assert trace.decisiveness > 0.95
    assert trace.gates.shape == (12, 3)
    assert len(trace.plot().data) == 1
    with pytest.raises(InputError, match="addends are 0 to 9"):
        chained.module.trace(10, 0)


def test_chains_reach_sums_that_networks_of_one_pass_do_not(chained: workspace.WorkspaceRun) -> None:
    assert chained.accuracy["workspace"] == {"train": 1.0, "interpolation": 1.0, "extrapolation": 1.0}
    for rival in ("lstm", "transformer"):
        found = chained.accuracy[rival]
        assert found["train"] > 0.9
        assert found["interpolation"] < 0.9
        assert found["extrapolation"] == 0
        assert chained.n_parameters[rival] > 3 * chained.n_parameters["workspace"]
    with pytest.raises(InputError, match="no rival 'gru'"):
        workspace.WorkspaceRecipe(rivals=("gru",))


def test_the_controller_is_an_ordinary_model_and_closing_a_gate_breaks_the_chain(
    chained: workspace.WorkspaceRun,
) -> None:
    model = interp.load(chained.module, prove=False)
    ids = chained.sets.extrapolation
    assert (model.logits(ids).argmax(-1) == ids.sum(1)).all()

    class Closed(workspace.Workspace):
        def gates(self, b):
            open_ = super().gates(b) * torch.tensor([1.0, 0.0, 1.0])
            return open_ / open_.sum(-1, keepdim=True)

    closed = Closed()
    closed.load_state_dict(chained.module.state_dict())
    assert {closed.trace(3, b).answer for b in range(10)} <= {3, None}


@pytest.mark.slow
def test_the_increment_can_be_learned_with_the_router() -> None:
    """In two of three seeds; what was never incremented in training stays unknown."""
    recipe = workspace.WorkspaceRecipe(learned=True, ones_first=500, steps=1500, rivals=())
    runs = [workspace.train_workspace(seed=seed, recipe=recipe) for seed in (1, 2)]
    for run in runs:
        assert run.accuracy["workspace"] == {"train": 1.0, "interpolation": 1.0, "extrapolation": 0.0}
        assert run.module.increment()[:12].argmax(1).tolist() == list(range(1, 13))
        assert run.routes()[9] == ("input", *["increment"] * 9, "output")
