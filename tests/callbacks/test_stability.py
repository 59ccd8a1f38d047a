"""The stability callback against `bpgen.stability` itself, and what it refuses before training begins."""

import pytest
import torch

from bpgen import Network
from bpgen.callbacks import Evaluation, Stability
from bpgen.errors import BpgenError
from bpgen.losses import L2, Loss
from bpgen.neurons import LIF, Leaky
from bpgen.rules import OfflineRule, load_rule, propagate
from bpgen.stability import stability
from bpgen.training.module import RuleTraining
from bpgen.training.options import Optimizer
from bpgen.training.splits import TaskSplits
from tests.callbacks.test_measurements import Toy


def evaluation(rule="rflo", neuron=None, **optimizer):
    network = Network(neuron or Leaky(0.5, "tanh"), 3, 6, 4, seed=1)
    rule = load_rule(rule) if isinstance(rule, str) else rule
    module = RuleTraining(network, rule, Loss("mse", "last", None, L2.of(0.1)), Optimizer(**optimizer))
    return Evaluation(module, TaskSplits(Toy(), module.loss), lr=0.05)


def test_it_is_the_stability_of_the_runs_rule_on_the_named_subset():
    at = evaluation(momentum=0.5)
    row = Stability(samples=40, tol=1e-6).measure(at)
    split = at.splits.task.split("train")
    target = torch.nn.functional.one_hot(split.target, 4).float()
    options = {"lr": 0.05, "momentum": 0.5, "tol": 1e-6, "top": 2}
    direct = stability(at.module.rule, at.module.network, split.x, target, "mse", regulariser=0.1, **options)
    for name, value in {
        "rho": direct.rho,
        "rho_directional": direct.rho_directional,
        "lambda_max": direct.lambda_max,
        "mu_abs": direct.mu[0].abs().item(),
        "max_multiplier": direct.max_multiplier,
        "bound": 60.0,
        "bound_rho": direct.bound_rho,
        "edge_rho": direct.edge_rho,
    }.items():
        assert row[f"stability/{name}"] == pytest.approx(value, rel=1e-6), name
    without = Stability(samples=40, tol=1e-6, regulariser=False).measure(at)
    assert 0 < row["stability/lambda_max"] - without["stability/lambda_max"] < 0.1  # v_1 has a part in the bias
    assert Stability(samples=20).measure(at)["stability/lambda_max"] != pytest.approx(row["stability/lambda_max"])
    assert "20 of 40 train samples" in Stability(samples=20).describe(at)


def test_bptt_is_at_lambda_itself_and_a_local_rule_is_not():
    row = Stability(samples=40).measure(evaluation("bptt"))
    assert row["stability/mu_abs"] == pytest.approx(row["stability/lambda_max"], rel=1e-3)
    assert row["stability/edge"] == pytest.approx(row["stability/edge_rho"], rel=1e-3)
    assert row["stability/asymmetry"] < 1e-9
    local = Stability(samples=40).measure(evaluation("rflo"))
    assert abs(local["stability/mu_abs"] / local["stability/lambda_max"] - 1) > 0.05
    assert local["stability/asymmetry"] > 0.1


def test_spiking_networks_have_names_of_their_own():
    at = evaluation("three_factor", LIF())
    row = Stability(samples=8).measure(at)
    assert all(name.startswith("stability/surrogate/") for name in row)
    assert "surrogate network" in Stability(samples=8).describe(at)
    assert "surrogate network" not in Stability(samples=8).describe(evaluation())


def test_it_leaves_no_trace():
    at = evaluation()
    weights = {n: p.detach().clone() for n, p in at.module.named_parameters()}
    state = torch.get_rng_state()
    with at.undisturbed():
        Stability(samples=8).measure(at)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, weights[n]) and p.grad is None for n, p in at.module.named_parameters())


class Detached(OfflineRule):
    def credit(self, trajectory, error):
        return propagate(trajectory, error @ trajectory.params["W_out"].detach())


def test_what_cannot_be_measured_is_refused_before_training():
    at = evaluation()
    Stability(samples=8).check(at)
    for at, says in (
        (evaluation(name="adam"), "needs --optimizer.name sgd"),
        (evaluation(lr_scale={"W_out": 0.1}), "lr_scale may only freeze"),
        (evaluation(Detached()), "does it detach"),
    ):
        with pytest.raises(BpgenError, match=says):
            Stability(samples=8).check(at)


@pytest.mark.parametrize("options", [{"samples": -1}, {"top": 0}, {"tol": 0}, {"max_products": 1}, {"probes": -1}])
def test_bad_options(options):
    with pytest.raises(BpgenError):
        Stability(**options)
    assert not Stability().enabled
