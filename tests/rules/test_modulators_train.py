"""What MDGL and ModProp are for: they train a recurrent network better than a fixed one, and than e-prop, on digits."""

from __future__ import annotations

from statistics import mean

import pytest
import torch

import bpgen
from bpgen.neurons import Leaky
from bpgen.tasks.digits import Digits

RULES = {
    "readout_only": ("readout_only", {}),
    "three_factor": ("three_factor", {}),
    "mdgl": ("mdgl", {}),
    "mdgl, true weights, leaky": ("mdgl", {"weights": "true", "tail": "leaky"}),
    "modprop": ("modprop", {}),
    "modprop, true weights": ("modprop", {"weights": "true"}),
    "bptt": ("bptt", {}),
}
SEEDS = range(5)


def trained(rule, options, seed, types, steps=400):
    """Test accuracy and training loss of 64 neurons, α = 0.5, loss at the last step, Adam, clipped at norm 1."""
    task = Digits()
    train, test = task.split("train"), task.split("test")
    network = bpgen.Network(Leaky(0.5), task.n_in, 64, task.n_out, seed=seed, **types)
    bound, random = bpgen.load_rule(rule, **options).bind(network), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = torch.randint(train.size, (64,), generator=random)
        grads = bpgen.gradients(bound, network, train.x[:, batch], train.target[batch]).grads
        for name, p in network.named_parameters():
            p.grad = grads[name]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        network.project_()
    with torch.no_grad():
        accuracy = (network(test.x).argmax(1) == test.target).float().mean().item()
        return accuracy, torch.nn.functional.cross_entropy(network(train.x), train.target).item()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bpgen.errors.UnstableRuleWarning")
@pytest.mark.parametrize(
    "types", [{}, {"cell_types": {"E": 0.8, "I": 0.2}, "dale": True}], ids=["one type", "E and I under Dale's law"]
)
def test_modulators_train_above_their_baselines(types):
    """Averages by cell type can hardly be told from e-prop here, and not at all under Dale's law; true weights can.

    Under Dale's law μ = 0.35 already loses one seed in five to the unstable filter, and μ = 0.5 two.
    """
    results = {row: [trained(*RULES[row], seed, types) for seed in SEEDS] for row in RULES}
    print(f"\n{len(SEEDS)} seeds, mean test accuracy (smallest - largest), mean training loss")
    for row, runs in results.items():
        accuracies, losses = zip(*runs, strict=True)
        spread = f"({min(accuracies):.3f} - {max(accuracies):.3f})"
        print(f"{row:28s} {mean(accuracies):.3f} {spread}   {mean(losses):.3f}")
    accuracy = {row: mean(a for a, _ in runs) for row, runs in results.items()}
    loss = {row: mean(value for _, value in runs) for row, runs in results.items()}
    for row in ("mdgl", "modprop"):
        assert accuracy[row] > accuracy["readout_only"] + 0.02
        assert loss[row] < 0.8 * loss["readout_only"]
    for row in ("mdgl, true weights, leaky", "modprop, true weights"):
        assert accuracy[row] > accuracy["three_factor"] + 0.02
        assert loss[row] < 0.9 * loss["three_factor"]
        assert loss[row] > loss["bptt"]
