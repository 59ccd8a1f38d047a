"""A mutant for every built-in rule: its own likely mistake, in its own source, and a comparison that sees it.

The rules whose mutants stand beside their references (`MUTANTS` of the other files) are counted at the end.
"""

from __future__ import annotations

import pytest
import torch

import bpgen
from bpgen.neurons import Leaky
from bpgen.streams import generator
from tests.oracles import RECURRENT, WEIGHTS, assert_equal, autograd, in_blocks, no_hop, problem, sliding, through
from tests.rules import (
    test_causal,
    test_controls,
    test_diffusion,
    test_eprop_plus,
    test_factored,
    test_layers,
    test_modulators,
    test_online,
    test_perturbation,
    test_sketch,
    test_spiking_rules,
    test_steps,
)
from tests.rules.test_online import mutant

T = 7


def a_problem(**options):
    return problem(Leaky(0.4, "tanh"), **{"T": T, "kappa": 0.5, "learned": True, **options})


def bptt(rule):
    for p in (a_problem(), a_problem(output_feedback=1.0)):
        assert_equal(p.rule(rule).grads, autograd(p))


def local(rule):
    p = a_problem()
    rule.bind(p.network)
    B = rule.feedback.weight
    assert_equal(p.rule(rule).grads, autograd(p, **no_hop(), **({} if B is None else through(B))))


def tbptt(rule):
    rule.window = 3
    p = a_problem(output_feedback=1.0)
    assert_equal(p.rule(rule).grads, autograd(p, **in_blocks(3)))
    p, rule.style = problem(Leaky(0.4, "tanh"), T=T), "sliding"
    assert_equal(p.rule(rule).grads, sliding(p, 3), RECURRENT)


def readout(rule):
    p = a_problem()
    got, exact = p.rule(rule).grads, autograd(p)
    assert_equal(got, exact, ["W_out", "b_out"])
    assert not any(got[n].any() for n in (*RECURRENT, "initial_state"))


def flat(grads):
    return torch.cat([grads[n].flatten() for n in WEIGHTS])


def noisy(rule):
    """Each kind of noise as its equation says, from gradients by autograd."""
    p = problem(Leaky(0.4, "tanh"), T=T)
    g, e = flat(autograd(p)), flat(autograd(p, **no_hop()))
    e = e - (e @ g) / (g @ g) * g
    rule.bind(p.network)
    rule.kind = "remainder"
    torch.testing.assert_close(flat(p.rule(rule).grads) - g, e)
    rule.kind = "orthogonal"
    noise = flat(p.rule(rule).grads) - g
    assert abs(noise @ g) < 1e-12 * noise.norm() * g.norm()
    torch.testing.assert_close(noise.norm(), e.norm())
    rule.kind, rule.reference, P = "isotropic", None, 20 + 20 + 5 + 15 + 3  # weights that can act
    xi = rule.draw(p.network, p.x, generator(0, "draws"))
    xi = flat({n: xi[f"noise/{n}"] for n in WEIGHTS})
    torch.testing.assert_close(flat(p.rule(rule).grads) - g, g.norm() * xi / P**0.5)


def random(rule):
    """The gradient's norm, anew for every draw, and not along the gradient."""
    p = problem(Leaky(0.4, "tanh"), T=T)
    g, args = flat(autograd(p)), (p.network, p.x, p.target, p.loss, p.when, None, p.s_0)
    one, other = (flat(bpgen.gradients(rule, *args, seed=s).grads) for s in (0, 1))
    torch.testing.assert_close(one.norm(), g.norm())
    assert max(abs(torch.cosine_similarity(a, b, dim=0)) for a, b in ((one, g), (one, other), (other, g))) < 0.5


# row: rule, a piece of its source, what stands there by mistake, the comparison
MUTANTS = {
    "bptt carries credit by W in place of Wᵀ": ("bptt", '["W_rec"]', '["W_rec"].mT', bptt),
    "bptt forgets the way through the outputs": ("bptt", ", through_outputs=True", "", bptt),
    "tbptt has a window of one step more": ("tbptt", "blocks=self.window", "blocks=self.window + 1", tbptt),
    "tbptt looks back one step less": ("tbptt", "reach=self.window", "reach=self.window - 1", tbptt),
    "three_factor lets one hop through": (
        "three_factor",
        "propagate(trajectory, self.feedback.signal(trajectory, error))",
        "propagate(trajectory, self.feedback.signal(trajectory, error), carrier=trajectory.params['W_rec'], hops=1)",
        local,
    ),
    "three_factor keeps the last step alone": (
        "three_factor",
        "propagate(trajectory, self.feedback.signal(trajectory, error))",
        "propagate(trajectory, self.feedback.signal(trajectory, error)[-1:])",
        local,
    ),
    "rflo sends the error through the readout": (
        "rflo",
        "q = self.feedback.signal(trajectory, error)",
        "q = error @ trajectory.params['W_out']",
        local,
    ),
    "rflo takes the published trace for its own": ("rflo", 'if self.trace == "own"', 'if self.trace != "own"', local),
    "readout_only trains the last step's currents": ("readout_only", "new_zeros(0, ", "new_ones(1, ", readout),
    "noisy_bptt makes noise as long as the gradient": ("noisy_bptt", "divide(norm(e)", "divide(norm(exact)", noisy),
    "noisy_bptt forgets to project": (
        "noisy_bptt",
        "xi = remainder(noise_of(exact, draws), exact)",
        "xi = noise_of(exact, draws)",
        noisy,
    ),
    "noisy_bptt forgets the number of weights": ("noisy_bptt", " / math.sqrt(P)", "", noisy),
    "noisy_bptt adds the whole reference": ("noisy_bptt", "e = remainder(reference, exact)", "e = reference", noisy),
    "random_gradient is as long as its noise": (
        "random_gradient",
        "times(divide(norm(exact), norm(xi)), xi)",
        "xi",
        random,
    ),
    "random_gradient is the gradient": ("random_gradient", "xi = noise_of(exact, draws)", "xi = exact", random),
    "random_gradient draws once": (
        "random_gradient",
        "return draw_noise(network, random)",
        "return draw_noise(network, torch.Generator().manual_seed(0))",
        random,
    ),
}


@pytest.mark.parametrize("row", MUTANTS)
def test_mutant_is_killed(row):
    name, old, new, check = MUTANTS[row]
    check(bpgen.load_rule(name))
    with pytest.raises(AssertionError):
        check(mutant(name, old, new)())


def test_every_built_in_rule_has_a_mutant():
    killed = {name for name, *_ in MUTANTS.values()}
    killed |= {
        name
        for table in (
            test_online,
            test_modulators,
            test_diffusion,
            test_eprop_plus,
            test_causal,
            test_sketch,
            test_factored,
            test_layers,
            test_spiking_rules,
        )
        for name, *_ in table.MUTANTS.values()
    }
    killed |= set(test_controls.MUTANTS.values())
    short = {"node": "node_perturbation", "weight": "weight_perturbation"}
    killed |= {short.get(row, row) for *_, row in test_perturbation.MUTANTS.values()}
    killed |= {"force", "hebbian"}  # by functions of their own:
    assert test_steps.test_mutants_of_force_are_killed
    assert test_steps.test_mutant_of_oja_is_killed
    classes = {}
    for name, plugin in bpgen.registry.plugins("rule").items():
        if plugin.class_path.startswith("bpgen_rules"):
            classes.setdefault(plugin.class_path, set()).add(name)  # eprop is another name of three_factor
    assert [names for names in classes.values() if not names & killed] == []
