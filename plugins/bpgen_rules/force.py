"""FORCE: the readout alone learns, by recursive least squares at every step, while its output drives the network.

    (1) e_t = W_out r_t + b_out - y*_t               error before the update; this output is what is fed back
    (2) P <- P - P r_t r_tᵀ P / (1 + r_tᵀ P r_t),    P = I/ridge at first; r_t with a last entry 1 for the bias
    (3) W_out <- W_out - e_t (P r_t)ᵀ                with the new P
Source: Sussillo and Abbott 2009, Neuron 63:544; the fed-back output as in its supplementary code.
In a network with output feedback (`network.output_feedback`, its W_fb fixed) the loop is closed: W_out changes within
the sequence and moves what follows. Without, the activity does not depend on W_out, and (1)-(3) are ridge regression.
A batch is one update of rank B a step; a step of weight m counts as √m r, √m y*. P is kept from batch to batch.
Deviation: the recurrent weights get no change (weight zero, not FORCE on the internal synapses); P in float64.
Handed over as `update="step"`: the weight change of the whole sequence, its sign that of a gradient. Loss and outputs
are those of a run at the weights before.
Shapes: r [B,N], P [n,n], n = N or N+1. Cost: N² and B·N a step and sample, and one more forward run; memory T·N.
Exact: never a gradient; open loop, after n samples W_out is the ridge solution around the first W_out. Neurons: all.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.rules import Draws, Loss, Network, Problem, Rule, RuleGradients, Traits, Trajectory, require


class FORCE(Rule):
    """FORCE learning of the readout, in open loop or through output feedback.

    Args:
        ridge: P = I/ridge at first: the weight of the penalty that keeps W_out near where it started. From 1 to 100 in
            the paper, where a small one learns faster.
    """

    suits: ClassVar[Mapping[str, Any]] = {"loss.kind": "mse"}
    trains_neurons = False
    traits = Traits(
        signal_origin="symmetric",
        signal_scope="none",
        recurrence="none",
        weight_transport=False,
        needs_future=False,
        memory="N²",
        update="step",
        learns=("P",),
    )
    P: Tensor

    def __init__(self, ridge: float = 1.0) -> None:
        super().__init__()
        require(ridge > 0, f"ridge must be > 0, got {ridge}.")
        self.ridge = ridge
        self.register_buffer("P", torch.zeros(0, 0, dtype=torch.float64))

    def bind(self, network: Network, seed: int = 0) -> "FORCE":
        """Start P, unless it was started."""
        super().bind(network, seed)
        n = network.n_rec + (network.b_out is not None)
        if self.P.shape != (n, n):
            self.P = torch.eye(n, dtype=torch.float64, device=network.W_out.device) / self.ridge
        return self

    def check(self, loss: Loss) -> None:
        """Recursive least squares are about squared errors, and have a penalty of their own."""
        require(loss.kind == "mse", "force minimises squared errors: use --loss.kind mse.")
        require(loss.regulariser is None, "force has a penalty of its own, --rule.ridge: leave loss.l2 at 0.")

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """Equations (1) to (3), from step to step."""
        network, params, run = problem.network, problem.params, problem.run()
        target, loss = problem.loss.of_chunk(problem.x, problem.target)
        weights = run.h.new_ones(run.h.shape[:2])[1:] if loss.mask is None else loss.mask
        ends = [run.params[n].double() if n == "W_out" else params[n].double().unsqueeze(1) for n in _readout(params)]
        before = W = torch.cat(ends, 1)  # [O,n]
        read = 1.0 if network.out_mask is None else network.out_mask[0]  # the neurons that the readout sees
        P, loop, T = self.P.double(), None if network.W_fb is None else _ClosedLoop(run), problem.n_steps
        y = None
        for t in range(T):
            r = read * (run.r[t] if loop is None else loop.advance(t, y))
            z = torch.cat([r, torch.ones_like(r[:, :1])], 1)[:, : W.shape[1]].double()  # [B,n]
            output = z @ W.mT
            y = output.to(r)
            weight = weights[t].double().sqrt().unsqueeze(1)
            z, e = weight * z, weight * (output - target[t].double())
            Pz = z @ P  # [B,n]
            K = torch.linalg.solve(torch.eye(len(z)).to(P) + Pz @ z.mT, Pz)
            P, W = P - Pz.mT @ K, W - e.mT @ K
        change = (before - W).to(problem.x.dtype)
        grads = {name: torch.zeros_like(p) for name, p in params.items()}
        grads["W_out"] = change[:, : network.n_rec].contiguous()
        if "b_out" in params:
            grads["b_out"] = change[:, -1].contiguous()
        return RuleGradients(problem.value_and_error(run)[0], run.outputs, grads, {"P": (P + P.mT) / 2})

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over P."""
        self.P = aux["P"]


def _readout(params: Mapping[str, Tensor]) -> list[str]:
    return [name for name in ("W_out", "b_out") if name in params]


class _ClosedLoop:
    """The network of a run, step by step, driven by outputs that are not known beforehand."""

    def __init__(self, run: Trajectory) -> None:
        self.run, self.s, self.h = run, run.states[0], run.h[0]
        self.r = torch.zeros_like(self.h)

    def advance(self, t: int, y: Tensor | None) -> Tensor:
        """r of step t (from 0) after the output y [B,O] of the step before, None at first."""
        network, noise = self.run.network, self.run.current_noise
        extra = None if noise is None else noise[t]
        if y is not None and network.W_fb is not None:
            back = y @ network.W_fb.mT
            extra = back if extra is None else extra + back
        _, self.s, self.h = network.advance(self.run.params, self.s, self.h, self.run.x[t], extra)
        self.r = network.kappa * self.r + (1 - network.kappa) * self.h
        return self.r
