"""Decoupled neural interfaces in time: a learned guess of the credit that the future will send back.

    (1) λ_t = D_tᵀ q_t + F̂_t,   c_t = C_tᵀ λ_t,   q_t = e_t W_out          ∂L/∂W_rec ≈ Σ_t c_t h_{t-1}ᵀ
    (2) F̂_t = Z z_t / B,   z_t = (s_t, B e_t, 1)           synthetic gradient: guess of ∂L_{>t}/∂s_t; 0 at the last step
    (3) F*_{t-1} = J_tᵀ λ_t,   J_t = A_t + C_t W_rec D_{t-1}                bootstrapped target, known one step later
    (4) ∂Z = Σ_t <(Z z_{t-1} - B F*_{t-1}) z_{t-1}ᵀ / (1+‖z_{t-1}‖²)>,   Z -= lr ∂Z / T,   Z = 0 at the start
Source: Jaderberg et al. 2017, ICML (arXiv 1608.05343), its application to recurrent networks;
one-step bootstrap and linear synthesiser as in Marschall, Cho and Savin 2020, JMLR 21 (DNI).
A learned initial state earns F*_0.
Deviation: the synthesiser sees the error e_t in place of the label; it guesses the credit of later steps alone, the
present error is exact; the steps of (4) are normalised (NLMS) and averaged over the batch <>; (4) comes with each
weight change, through `Rule.learn`, as the mean over its T steps (a sum at one Z is unstable at large T); weights
change after the sequence or chunk.
Limits: where no loss is near, (3) is a guess of guesses: with a loss at the last step alone, temporal XOR and an
expanding network diverge; told its error at every step it trains. With lr = 0 it is `tbptt` with a window of 1.
Shapes: Z [d·N,d·N+O+1] is the buffer "synthesiser"; z [B,d·N+O+1]; F̂ [B,d,N].
Cost: N² per step and sample (J_tᵀ is a product with W_recᵀ); memory N², flat in T.
Exact: with a perfect synthesiser; T = 1. Neurons: all, readouts without a filter (κ = 0).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.rules import (
    BpgenError,
    Increments,
    Limit,
    Moment,
    Network,
    OnlineRule,
    State,
    Steps,
    Traits,
    gradients_of_currents,
    require,
)


class DNI(OnlineRule):
    """Decoupled neural interfaces (Jaderberg 2017): a synthetic gradient stands for the future.

    Args:
        lr: step of the synthesiser, as a fraction of its error.
    """

    synthesiser: Tensor | None
    suits: ClassVar[Mapping[str, Any]] = {"rule.lr": 0.001, "optimizer.lr": 0.01}  # a loss at the last step alone
    traits = Traits(
        signal_origin="bootstrapped",
        needs_future=False,
        online=True,
        time_per_step="N²",
        memory="N²",
        exact_when=Limit(("T = 1",), condition="or where its synthesiser is perfect"),
        learns=("synthesiser",),
    )

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        require(lr >= 0, f"rule.lr must be >= 0, got {lr}.")
        self.lr = lr
        self.register_buffer("synthesiser", None)

    def bind(self, network: Network, seed: int = 0) -> "DNI":
        """Start from Z = 0, once."""
        super().bind(network, seed)
        if network.kappa > 0:
            raise BpgenError("dni is defined for readouts without a filter: use --network.kappa 0.")
        if self.synthesiser is None:
            states = network.neuron.n_states * network.n_rec
            self.synthesiser = network.W_rec.new_zeros(states, states + network.n_out + 1)
        return self

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """Nothing to compare at the first step: z_0 is zero."""
        d, N = network.neuron.n_states, network.n_rec
        like = params["W_rec"]
        return {"z": like.new_zeros(batch, d * N + network.n_out + 1), "guess": like.new_zeros(batch, d, N)}

    def synthesise(self, z: Tensor) -> Tensor:
        """Z z [B,d·N]: the guess for each sample, in units of its own loss."""
        assert self.synthesiser is not None, "bind(network) makes the synthesiser first"
        return z @ self.synthesiser.mT

    at_once = True

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """Equations (1) to (4) at all steps at once: none of them needs the one before."""
        run, error, B = steps.run, steps.error_at_all, steps.run.x.shape[1]
        s, params, C = run.states[1:], run.params, steps.C
        z = torch.cat([s.flatten(2), B * error, torch.ones_like(error[..., :1])], dim=2)
        guess = self.synthesise(z).view_as(s) / B
        if steps.ends:
            guess = torch.cat([guess[:-1], torch.zeros_like(guess[:1])])
        credit = guess + steps.D[1:] * (error @ params["W_out"]).unsqueeze(2)  # λ [k,B,d,N]
        c = (C * credit.unsqueeze(3)).sum(2).flatten(2)  # [k,B,K·N]
        before = (steps.A * credit.unsqueeze(3)).sum(2) + steps.D[:-1] * (c @ params["W_rec"]).unsqueeze(2)  # F*
        grads = gradients_of_currents(run.network, params, c.flatten(0, 1).mT @ steps.pre.flatten(0, 1))
        if steps.t == 0 and "initial_state" in params:
            grads["initial_state"] = before[0].sum(0)
        seen, guessed = (torch.cat([state[name].unsqueeze(0), now[:-1]]) for name, now in (("z", z), ("guess", guess)))
        wrong = (B * (guessed - before)).flatten(2) / (1 + seen.square().sum(-1, keepdim=True))
        grads["synthesiser"] = wrong.flatten(0, 1).mT @ seen.flatten(0, 1) / B
        grads["steps"] = torch.full_like(s[0, 0, 0, 0], len(s))
        return {"z": z[-1], "guess": guess[-1]}, grads

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (4)."""
        s, B, W_out, error = moment.s, len(moment.s), moment.params["W_out"], moment.error
        told = torch.zeros_like(s[:, 0, :1]).expand(-1, W_out.shape[0]) if error is None else B * error
        z = torch.cat([s.flatten(1), told, torch.ones_like(s[:, 0, :1])], dim=1)
        guess = torch.zeros_like(s) if moment.ends else self.synthesise(z).view_as(s) / B
        credit = guess if error is None else guess + moment.D * (error @ W_out).unsqueeze(1)  # λ_t
        c = (moment.C * credit.unsqueeze(2)).sum(1)  # [B,K,N]
        hop = c.flatten(1) @ moment.params["W_rec"]
        before = (moment.A * credit.unsqueeze(2)).sum(1) + moment.D_before * hop.unsqueeze(1)  # F*_{t-1} [B,d,N]
        grads = moment.synapses(c.flatten(1).mT @ moment.pre)
        if moment.t == 1 and "initial_state" in moment.params:
            grads["initial_state"] = before.sum(0)
        seen = state["z"]
        wrong = (B * (state["guess"] - before)).flatten(1) / (1 + seen.square().sum(-1, keepdim=True))
        grads.update(synthesiser=wrong.mT @ seen / B, steps=torch.ones_like(s[0, 0, 0]))
        return {"z": z, "guess": guess}, grads

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Equation (4)."""
        assert self.synthesiser is not None
        self.synthesiser = self.synthesiser - self.lr * aux["synthesiser"] / aux["steps"]
