"""Hebbian learning with Oja's decay: the local null, which learns from activity alone and never from an error.

    (1) ΔW_rec[p,q] = lr ⟨h_{p,t} h_{q,t-1} - h_{p,t}² W_rec[p,q]⟩      ⟨ ⟩: mean over steps and sequences
    (2) ΔW_in[p,i]  = lr ⟨h_{p,t} x_{i,t} - h_{p,t}² W_in[p,i]⟩
    (3) ΔW_out = -lr_out ∂L/∂W_out, Δb_out alike                        the exact gradient: the delta rule
Source: Hebb 1949; Oja 1982, J. Math. Biol. 15:267, for one linear neuron, whose weights become the first
principal component of its inputs, of norm 1; here for every neuron of a recurrent network.
Deviation: weights change after the batch by the mean, not after every step; recurrent biases and a learned initial
state do not change; lr_out = 0 leaves the readout alone as well.
Limits: no rule of this kind keeps a recurrent loop of unbounded neurons stable; at lr 1e-4 ReLU networks were seen to
explode on digits, and tanh networks to lose what their readout needs.
Handed over as `update="step"`: finished weight changes, their sign that of a gradient.
Shapes: h [T+1,B,N]. Cost: N² per step and sample; memory T·N (online: none). Exact: never; no error enters (1), (2).
Neurons: those with one input current (Leaky, LIF, ALIF).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from bpgen.rules import Draws, Loss, Problem, Rule, RuleGradients, Traits, require
from bpgen_rules._perturbation import gradients_of


class Hebbian(Rule):
    """Oja's rule in the recurrent network, the delta rule in the readout.

    Args:
        lr: learning rate of Oja's rule.
        lr_out: learning rate of the readout; 0 leaves it alone.
    """

    suits: ClassVar[Mapping[str, Any]] = {"rule.lr": 1e-6}  # at 1e-5 one seed in three diverges on the default task
    trains_neurons = False
    traits = Traits(
        signal_origin="none",
        signal_scope="none",
        recurrence="none",
        weight_transport=False,
        needs_future=False,
        neurons=("Leaky", "LIF", "ALIF"),
        update="step",
    )

    def __init__(self, lr: float = 1e-5, lr_out: float = 0.02) -> None:
        super().__init__()
        require(lr > 0, f"lr must be > 0, got {lr}.")
        require(lr_out >= 0, f"lr_out must be >= 0, got {lr_out}.")
        self.lr, self.lr_out = lr, lr_out

    def check(self, loss: Loss) -> None:
        """Oja's decay takes the place of a penalty on the weights."""
        require(loss.regulariser is None, "hebbian has a decay of its own (Oja): leave loss.l2 at 0.")

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equations (1) to (3)."""
        run = problem.run()
        result = gradients_of(problem, run)
        post = run.h[1:].flatten(0, 1)  # [T·B,N]
        grads = {n: self.lr_out * g for n, g in result.grads.items()}  # zero but for the readout
        for name, pre in (("W_rec", run.h[:-1]), ("W_in", problem.x)):
            growth = post.mT @ pre.flatten(0, 1) / len(post)
            change = self.lr * (growth - post.square().mean(0).unsqueeze(1) * problem.params[name])
            grads[name] = -change
        return result._replace(grads=problem.network.masked(grads))
