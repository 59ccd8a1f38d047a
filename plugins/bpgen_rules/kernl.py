"""Kernel RNN learning: the influence as a learned matrix between neurons times an eligibility trace that leaks.

    (1) ∂s_k,t/∂w_pq ≈ A_kp e_pq,t,   e_t = (1-γ_p) e_{t-1} + C_t ∂I_t/∂w         A: sensitivity kernel, γ: its decay
    (2) ∂L/∂w_pq ≈ Σ_t Σ_k (q_t D_t)_k A_kp e_pq,t,   q_t = e_t B
A and γ learn to predict what noise ξ does to the state. With ŝ a second run of the network that is kicked at each step,
    (3) ŝ_t = f(ŝ_{t-1}, I(ŝ_{t-1})) + σ ξ_t,   ω_t = (1-γ) ω_{t-1} + ξ_t,   Γ_t = (1-γ) Γ_{t-1} - ω_{t-1}  (= ∂ω/∂γ)
    (4) δ_t = A ω_t - (ŝ_t - s_t)/σ,   ∂A = Σ_t <δ_t ω_tᵀ / (1+‖ω_t‖²)>,   ∂γ = Σ_t <(Aᵀ δ_t) Γ_t / (1+‖ω_t‖²)>
    (5) A -= lr ∂A,   γ -= lr ∂γ, held in [0, 1]; at the start A = 1 and γ = α
Source: Roth, Kanitscheider and Fiete 2019, ICLR; (1), (2) there for the rate leak.
Deviation: s_t may be the potential (then D_t = φ' stands in (2)); the steps of (4) are normalised (NLMS) and averaged
over the batch <>; (5) comes with each weight change, through `Rule.learn`; γ in place of its logarithm or inverse.
A learned initial state earns nothing.
Limits: the two runs start together with each sequence; on a stream they drift apart as far as the network lets them.
Shapes: A [N,N] and γ [N] are buffers "kernel", "decay"; e [B,N,X]; ŝ [B,1,N]; ω, Γ [B,N]; draws "kicks" [T,B,N].
Cost: N² per step and sample; memory N², flat in T.
Exact: W_rec = 0 as long as A = 1; with lr = 0 (A = 1, γ = α) it is `rflo` on the rate leak, and `eprop` with symmetric
feedback on the potential leak. Neurons: Leaky with leak="potential" or "rate", readouts without a filter (κ = 0).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.neurons import Leaky
from bpgen.rules import (
    BpgenError,
    Broadcast,
    Increments,
    Limit,
    Moment,
    Network,
    OnlineRule,
    State,
    Steps,
    Traits,
    own_influence,
    require,
)
from bpgen_rules._kernl_block import kicked, met


class KeRNL(Broadcast, OnlineRule):
    """Kernel RNN learning (Roth 2019): a learned sensitivity kernel carries credit between neurons.

    Args:
        lr: step of the kernel and of its decays, as a fraction of the prediction error; 0 keeps A = 1.
        sigma: size of the kicks by which the kernel is learned.
        **feedback: see `bpgen.rules.Broadcast`.
    """

    kernel: Tensor | None
    decay: Tensor | None
    traits = Traits(
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N²",
        neurons=("Leaky",),
        exact_when=Limit(("W_rec = 0",), condition="before its kernel has learned"),
        learns=("kernel", "decay"),
    )
    conformance_exceptions: ClassVar = {
        "stochastic if and only if it says so": "its draws teach the kernel; the gradient under a kernel has none in it"
    }

    def __init__(
        self,
        lr: float = 0.1,
        sigma: float = 0.01,
        **feedback: Any,
    ) -> None:
        super().__init__(**feedback)
        require(lr >= 0, f"rule.lr must be >= 0, got {lr}.")
        require(sigma > 0, f"rule.sigma must be > 0, got {sigma}.")
        self.lr, self.sigma = lr, sigma
        self.register_buffer("kernel", None)
        self.register_buffer("decay", None)

    def bind(self, network: Network, seed: int = 0) -> "KeRNL":
        """Start from A = 1 and the neuron's own leak, once."""
        super().bind(network, seed)
        assert isinstance(network.neuron, Leaky)
        if network.neuron.leak == "inside" or network.kappa > 0:
            raise BpgenError("kernl is defined for leak='potential' or 'rate' and network.kappa 0.")
        if self.kernel is None:
            self.kernel = torch.eye(network.n_rec).to(network.W_rec)
            self.decay = network.W_rec.new_zeros(network.n_rec) + network.neuron.alpha
        return self

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """ξ [T,B,N], standard normal."""
        return {"kicks": torch.randn(*x.shape[:2], network.n_rec, generator=random, dtype=torch.float64).to(x.dtype)}

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """No trace; no kick yet: the second run is known by its distance ŝ - s from the first."""
        own = torch.zeros_like(own_influence(network, params, batch))  # [B,1,X]
        none = own[..., 0].expand(-1, network.n_rec)  # [B,N]
        return {"trace": own.repeat(1, network.n_rec, 1), **dict.fromkeys(("apart", "omega", "by_decay"), none)}

    at_once = True

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Equations (1) to (4), see `bpgen_rules._kernl_block`."""
        A, gamma = self.kernel, self.decay
        assert A is not None, "bind(network) makes the kernel first"
        assert gamma is not None
        keep = 1 - gamma
        q = self.feedback.signal(steps.run, steps.error_at_all) * steps.D[1:, :, 0]
        trace, grads = met(state["trace"], steps, keep, q @ A)
        if self.lr == 0:
            return {**state, "trace": trace}, grads
        end, taught = kicked(state, steps, keep, A, self.sigma)
        return {"trace": trace, **end}, {**grads, **taught}

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (4)."""
        A, gamma = self.kernel, self.decay
        assert A is not None, "bind(network) makes the kernel first"
        assert gamma is not None
        trace = (1 - gamma).unsqueeze(-1) * state["trace"] + moment.C[:, 0, 0].unsqueeze(-1) * moment.direct
        grads: Increments = {}
        if moment.error is not None:
            q = self.feedback.signal(moment, moment.error) * moment.D[:, 0]
            grads = moment.gradient(torch.einsum("bn,bnx->nx", q @ A, trace))
        if self.lr == 0:
            return {**state, "trace": trace}, grads
        neuron, kick = moment.network.neuron, moment.draws["kicks"]
        other = moment.s_before + state["apart"].unsqueeze(1)  # ŝ_{t-1}
        hop = (neuron.g(other) - moment.h_before) @ moment.params["W_rec"].mT
        apart = (neuron.f(other, moment.I + hop.unsqueeze(1)) - moment.s).squeeze(1) + self.sigma * kick
        by_decay = (1 - gamma) * state["by_decay"] - state["omega"]
        omega = (1 - gamma) * state["omega"] + kick
        wrong = omega @ A.mT - apart / self.sigma
        wrong = wrong / (1 + omega.square().sum(-1, keepdim=True)) / len(omega)
        grads = {**grads, "kernel": wrong.mT @ omega, "decay": ((wrong @ A) * by_decay).sum(0)}
        return {"trace": trace, "apart": apart, "omega": omega, "by_decay": by_decay}, grads

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Equation (5)."""
        if self.lr > 0:
            assert self.kernel is not None
            assert self.decay is not None
            self.kernel = self.kernel - self.lr * aux["kernel"]
            self.decay = (self.decay - self.lr * aux["decay"]).clamp(0, 1)
