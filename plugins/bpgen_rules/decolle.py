"""DECOLLE: every area learns from a fixed random readout of its own, compared with the task's targets.

    (1) y^a_t = G_a r^a_t                    local readout of area a; G_a fixed and random; r = h at κ = 0
    (2) e^a = ∂L/∂y (y^a)                    its error, by the task's loss, targets, steps and mask
    (3) ∂L/∂w ≈ Σ_t (ē^a_t G_a)_i D_t ε_t    of a neuron i in a; ε of `three_factor`; LIF: σ'(U_i) P_j
    (4) computed along each neuron's own path: λ_t = D_tᵀ q_t + A_{t+1}ᵀ λ_{t+1},  q_t = ē^a_t G_a
Source: Kaiser, Mostafa and Neftci 2020, Front. Neurosci. 14:424, "deep continuous local learning", whose layers are the
areas here (--network.areas), and their code: spikes between layers and all states but the presynaptic trace P are
detached. A network without areas is one layer. Nothing of the output's own error, nor of W_out, reaches a neuron.
Limits: with one area, G = W_out and no b_out, e^a is the output error: `rflo` with feedback G, and `three_factor`.
Deviation: what is read out and tested is W_out, trained with its exact gradient (theirs tests the fixed readout of the
last layer); G is normal with standard deviation scale/√N (theirs uniform), without bias and dropout; local readouts
leak where the network's does (κ; theirs do not); ε is the neuron's own, for LIF one exponential where P has two; a cost
of the activity is loss.activity, theirs is of each layer; weights change after the sequence, not within.
Shapes: G [O,N], y^a, e^a [L,B,O] of each area, q [T,B,N], c [T,B,K,N].
Cost: O N per step and sample, plus the N² weight product; memory T·N. Exact: W_rec = 0, in that limit. Neurons: all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.rules import (
    Draws,
    Feedback,
    Limit,
    OfflineRule,
    Problem,
    RuleGradients,
    Traits,
    Trajectory,
    filtered_back,
    propagate,
    weight_gradients,
)


class DECOLLE(OfflineRule):
    """Deep continuous local learning (Kaiser et al. 2020): fixed random readouts of every area teach it.

    Args:
        seed: seed of the local readouts; by default it follows the run's seed.
        scale: an entry of a local readout has standard deviation scale/√N.
    """

    traits = Traits(
        signal_origin="local readouts",
        signal_scope="broadcast",
        recurrence="diagonal",
        weight_transport=False,
        needs_future=False,
        time_per_step="N",
        exact_when=Limit(("W_rec = 0",), symmetric_feedback=True, condition="one area and b_out = 0"),
    )
    when_diverged = "a smaller --rule.scale of the local readouts"

    def __init__(self, seed: int | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.feedback = Feedback("random", seed, scale)

    def limit_weights(self, params: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """Local readouts have no bias."""
        return {"b_out": torch.zeros_like(params["b_out"])} if "b_out" in params else {}

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equations (3) and (4)."""
        run = problem.run()
        value, error = problem.value_and_error(run)
        credit = propagate(run, self.signal(problem, run))
        aux = {"last_state": run.states[-1]}
        return RuleGradients(value, run.outputs, weight_gradients(run, credit, error), aux)

    def signal(self, problem: Problem, run: Trajectory) -> Tensor:
        """q [L,B,N] of equations (1) to (3), at the last L steps."""
        network, loss = run.network, problem.loss
        r = run.r[-1] if loss.when == "last" else run.r
        total = torch.zeros(())
        for number in range(len(network.area_names)):
            G = self.weight * (network.area == number)  # [O,N], zero outside the area
            _, error = loss.data_and_error(r @ G.mT, problem.target)
            total = total + filtered_back(error, network.kappa, run.n_steps) @ G
        return total

    @property
    def weight(self) -> Tensor:
        """G [O,N], of all areas."""
        assert self.feedback.weight is not None, "bind(network) draws the local readouts first"
        return self.feedback.weight
