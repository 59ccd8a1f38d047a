"""ModProp: credit that crosses any number of synapses, through cell-type averages and a constant in place of φ'.

On a leaking potential, with W̄ the mean weight between two cell types:
    (1) λ_t = φ'_t q_t + (1-α) λ_{t+1} + α μ W̄ᵀ λ_{t+1},   c_t = α λ_t
    (2) which is Σ_t Σ_s μ^s Σ_j q_{j,t} φ'_{j,t} (W̄^s)_{jp} (F^s * ε_q)_t: s = 0 is e-prop with its exact trace; each
        of the s synapses filters a modulator through F, f_t = (1-α) f_{t-1} + α x_{t-1}
In general, with c⁰ the credit of e-prop, λ' and c' as in (5) of `bpgen.rules.kernel` with W̄ and the gain of a hop:
    (3) leak="potential"   D' = μ (for φ'),  C' = α           leak="rate"   D' = 1,  C' = α μ (for α φ')
    (4) local_psi="mu" (the released code): c = c⁰ + c'. local_psi="exact" (the paper's form, where the receiving neuron
        keeps its eligibility trace): own path of q_t + W̄ᵀ (c⁰ + c')_{t+1}, true gains; μ^{s-1} (W̄^s) (F^s * e) in (2).
Which W̄ (--rule.weights): cell_type, the mean over all pairs of two types, those without a synapse counting as zero and
receiving it all the same (the released code); or true, the weights themselves.
With taps = S, no credit crosses more than S synapses ("MDGL++"). Without, (1) is a filter that must not grow: a warning
is given once where the spectral radius of (1-α) I + α μ W̄ reaches 1 (looked at in every 100th batch). Tune μ.
Source: Liu, Smith, Mihalas, Shea-Brown and Sümbül, NeurIPS 2022, arXiv 2206.01338; μ = 0.25 in their released code.
Deviation: the rate leak is derived here; the readout has its exact gradient; weights change after the sequence.
Shapes: q [T,B,N], c [T,B,1,N], W̄ [N,N]. Cost: N² per step and sample (online S C² for C types); memory T·N.
Exact: linear φ with μ = 1 and true weights; or W_rec = 0. At μ = 0 it is `three_factor`; with exact local ψ and true
weights it is `mdgl` with its leaky tail there, and for any μ at S = 1. Neurons: Leaky with leak="potential" or "rate".
"""

import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from bpgen.neurons import Leaky
from bpgen.neurons.gain import Gain, Scale, scale
from bpgen.rules import (
    BpgenError,
    Broadcast,
    Credit,
    Limit,
    Network,
    OfflineRule,
    Traits,
    Trajectory,
    UnstableRuleWarning,
    choice,
    hop,
    propagate,
    require,
    type_average,
)

Weights = Literal["cell_type", "true"]
Slope = Literal["mu", "exact"]
_LOOK_EVERY = 100


class ModProp(Broadcast, OfflineRule):
    """ModProp (Liu et al. 2022): credit across many synapses, by cell-type weights and a constant activation slope.

    Args:
        mu: μ, which stands for φ' wherever credit has crossed a synapse.
        weights: what is known of a synapse: the average of its cell types, or the true weight.
        local_psi: slope at the neuron whose synapses learn, for credit from others: mu (released code) or exact.
        taps: most synapses S that credit may cross; none is no limit.
        **feedback: see `bpgen.rules.Broadcast`.
    """

    traits = Traits(
        needs_future=False,
        neurons=("Leaky",),
        exact_when=Limit(("linear neurons", "W_rec = 0"), condition="for linear neurons with μ = 1 and true weights"),
        exact_with={"mu": 1.0, "weights": "true"},
    )

    def __init__(
        self,
        mu: float = 0.25,
        weights: Weights = "cell_type",
        local_psi: Slope = "mu",
        taps: int | None = None,
        **feedback: Any,
    ) -> None:
        super().__init__(**feedback)
        require(mu >= 0, f"rule.mu must be >= 0, got {mu}.")
        require(taps is None or taps >= 0, f"rule.taps must be a number of synapses, or none for all, got {taps}.")
        self.mu, self.weights, self.taps = float(mu), choice("weights of modprop", weights, Weights), taps
        self.local_psi = choice("local_psi of modprop", local_psi, Slope)
        self._calls, self._warned = 0, False

    def bind(self, network: Network, seed: int = 0) -> "ModProp":
        """Draw random feedback, if any."""
        super().bind(network, seed)
        if network.neuron.leak == "inside":
            raise BpgenError(
                "modprop is defined for neurons with leak 'potential' or 'rate': its constant μ stands for φ', which "
                "leak 'inside' has in the neuron's own leak as well. Choose another leak or rule (mdgl is for all)."
            )
        return self

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equations (3) and (4)."""
        q, W, taps = self.feedback.signal(trajectory, error), trajectory.params["W_rec"], self.taps
        if self.weights == "cell_type":
            W = type_average(W, trajectory.network, over="all")
        neuron, local = trajectory.network.neuron, trajectory.local
        assert isinstance(neuron, Leaky)
        gain: tuple[Gain, Gain] = local.C, Scale(self.mu)
        if neuron.leak == "rate":
            gain = scale(neuron.alpha * self.mu), local.D
        if taps is None and trajectory.in_place:  # elsewhere it may be traced, and cannot be looked at
            self._look(W, neuron.alpha)
        if self.local_psi == "mu" or taps == 0:
            return propagate(trajectory, q, carrier=W, hops=taps, gain=gain)
        sent = propagate(trajectory, q, carrier=W, hops=None if taps is None else taps - 1, gain=gain)
        return propagate(trajectory, hop(sent.currents, W, q))

    def _look(self, W: Tensor, alpha: float | Tensor) -> None:
        """Warn, once, where the filter (1) grows; a norm that is small enough saves the eigenvalues."""
        self._calls += 1
        if self._warned or (self._calls - 1) % _LOOK_EVERY:
            return
        a = W.new_zeros(len(W)) + alpha  # one for each neuron
        if (1 - a + a * self.mu * W.abs().sum(1)).max() < 1:
            return
        radius = torch.linalg.eigvals((1 - a).diag() + a.unsqueeze(1) * self.mu * W).abs().max().item()
        if radius >= 1:
            self._warned = True
            warnings.warn(
                f"modprop's filter is unstable: the spectral radius of (1-α) I + α μ W is {radius:.3g} >= 1, so that "
                f"credit grows with every step it travels back. Lower rule.mu (now {self.mu:g}) or set rule.taps.",
                UnstableRuleWarning,
                stacklevel=2,
            )
