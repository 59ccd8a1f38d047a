"""One moment of a run: everything an online rule may look at. There is no future in it.

The linear maps of a step, which every forward-in-time rule is made of, for any tail of axes * (J is their sum):
    own        [B,d,N,*] -> [B,d,N,*]     A_t S                  along the neuron's own path
    hop        [B,d,N,*] -> [B,K,N,*]     W_rec D_{t-1} S        from all states to the currents
    drive      [B,K,N,*] -> [B,d,N,*]     C_t U                  from the currents to the state
    read       [B,d,N,*] -> [B,N,*]       D_t S                  from the state to the activity
    J_t S = own(S) + drive(hop(S))
The parameters of neuron p that act on p alone are its own X = K·Q (+ d) (+ L) parameters: the weights of its K currents
from the Q presynaptic sources (h_{t-1}, x_t, 1), d learned initial states, L others (`Neuron.learned`), each a current.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bpgen.network import Network, Structure
from bpgen.neurons.gain import Scale
from bpgen.rules.steps import Steps


@dataclass
class Moment:
    """Time t of a run, t = 1, 2, ...; the network has just made its step.

    params: weights by name; `W_rec` and `W_in` are masked, `initial_state` is there only if it is learned and in use.
    t: steps since the start of the sequence.
    error: e_t = ∂L/∂y_t [B,O], step weights and 1/B included; None at a step without a loss.
    ends: whether the sequence ends here (a stream never ends).
    draws: this step's random numbers by name: what `Rule.draw` returned, at t.
    there: which sequences go on, bool [B]; None is all, and where ends are not known yet (`Steps.there`).
    """

    _steps: Steps
    _k: int  # its place among them, from 1
    params: Mapping[str, Tensor]
    t: int
    error: Tensor | None
    ends: bool
    draws: Mapping[str, Tensor]
    there: Tensor | None

    @classmethod
    def of(cls, steps: Steps, k: int) -> Moment:
        """Number k = 1, 2, ... of some steps."""
        T = steps.run.n_steps
        at = k - 1 - (T - len(steps.error))  # among the errors
        drawn = {name: draw[k - 1] for name, draw in steps.draws.items()}
        error, there = steps.error[at] if at >= 0 else None, None if steps.there is None else steps.there[k - 1]
        return cls(steps, k, steps.run.params, steps.t + k, error, steps.ends and k == T, drawn, there)

    @property
    def network(self) -> Structure:
        """Structure and neurons, at the present weights."""
        return self._steps.run.network

    @property
    def x(self) -> Tensor:
        """Input x_t [B,I]."""
        return self._steps.run.x[self._k - 1]

    @property
    def I(self) -> Tensor:  # noqa: E743
        """Currents I_t [B,K,N]."""
        return self._steps.run.currents[self._k]

    @property
    def s_before(self) -> Tensor:
        """State s_{t-1} [B,d,N]."""
        return self._steps.run.states[self._k - 1]

    @property
    def h_before(self) -> Tensor:
        """Activity h_{t-1} [B,N]."""
        return self._steps.run.h[self._k - 1]

    @property
    def s(self) -> Tensor:
        """State s_t [B,d,N]."""
        return self._steps.run.states[self._k]

    @property
    def h(self) -> Tensor:
        """Activity h_t [B,N]."""
        return self._steps.run.h[self._k]

    @property
    def r(self) -> Tensor:
        """What the readout sees, r_t [B,N]."""
        return self._steps.run.r[self._k - 1]

    @property
    def A(self) -> Tensor:
        """∂s_t/∂s_{t-1} [B,d,d,N], per neuron."""
        return self._steps.A[self._k - 1]

    @property
    def C(self) -> Tensor:
        """∂s_t/∂I_t [B,d,K,N], per neuron."""
        return self._steps.C[self._k - 1]

    @property
    def D(self) -> Tensor:
        """∂h_t/∂s_t [B,d,N], per neuron."""
        return self._steps.D[self._k]

    @property
    def D_before(self) -> Tensor:
        """∂h_{t-1}/∂s_{t-1} [B,d,N], per neuron."""
        return self._steps.D[self._k - 1]

    @property
    def numbers(self) -> tuple[float, float] | None:
        """A and C, where they are numbers, the same for all neurons and times (d = K = 1); else None."""
        A, C = self._steps.run.local.A, self._steps.run.local.C
        return (A.factor, C.factor) if isinstance(A, Scale) and isinstance(C, Scale) else None

    @property
    def kappa(self) -> float:
        """Decay of the readout filter: r_t = κ r_{t-1} + (1-κ) h_t."""
        return self.network.kappa

    def own(self, S: Tensor) -> Tensor:
        """A_t S: [B,d,N,*] -> [B,d,N,*]."""
        A = self._steps.run.local.A
        return A.factor * S if isinstance(A, Scale) else _apply(self.A, S)

    def drive(self, U: Tensor) -> Tensor:
        """C_t U: [B,K,N,*] -> [B,d,N,*]."""
        C = self._steps.run.local.C
        return C.factor * U if isinstance(C, Scale) else _apply(self.C, U)

    def read(self, S: Tensor) -> Tensor:
        """D_t S: [B,d,N,*] -> [B,N,*]."""
        return _apply(self.D.unsqueeze(1), S).squeeze(1)

    def tell(self, q: Tensor) -> Tensor:
        """D_tᵀ q: what a learning signal of the activity [B,N] tells the state [B,d,N]."""
        return self._steps.run.local.D.pull(q.unsqueeze(1), self._k)

    def hop(self, S: Tensor) -> Tensor:
        """W_rec D_{t-1} S: [B,d,N,*] -> [B,K,N,*]."""
        activity = _apply(self.D_before.unsqueeze(1), S).squeeze(1)
        currents = self.params["W_rec"] @ activity.reshape(*activity.shape[:2], -1)
        return currents.reshape(len(S), *self._steps.run.currents_shape, *S.shape[3:])

    @property
    def J(self) -> Tensor:
        """∂s_t/∂s_{t-1} [B,d·N,d·N] of the whole network: A_t + C_t W_rec D_{t-1}."""
        (K, N), W, D = self._steps.run.currents_shape, self.params["W_rec"], self.D_before
        if self.numbers is not None:
            J = (self.numbers[1] * W) * D
            J.diagonal(dim1=1, dim2=2).add_(self.numbers[0])
            return J
        J = torch.einsum("bicn,cnm,bjm->binjm", self.C, W.unflatten(0, (K, N)), D)
        J.diagonal(dim1=2, dim2=4).add_(self.A)  # [B,d,d,N]
        return J.flatten(3).flatten(1, 2)

    @cached_property
    def pre(self) -> Tensor:
        """The presynaptic side [B,Q] of all currents: h_{t-1}, x_t, and 1 where there is a bias b_rec."""
        return self._steps.pre[self._k - 1]

    @cached_property
    def direct(self) -> Tensor:
        """∂I_t/∂(own parameters) at fixed h_{t-1} [B,K,X]: the same for every neuron, but for what neurons learn."""
        K, pre = self.network.neuron.n_currents, self.pre.unsqueeze(1)
        blocks = pre if K == 1 else (torch.eye(K).to(pre).unsqueeze(-1) * pre.unsqueeze(1)).flatten(-2)
        learned = self.params.get("initial_state")
        none = [] if learned is None else [blocks.new_zeros(*blocks.shape[:-1], len(learned))]
        return torch.cat([blocks, *none], dim=-1) if none else blocks

    @property
    def of_each(self) -> Tensor:
        """∂I_t/∂(own parameters) [B,K,N,X] of each neuron; [B,K,1,X] where it is the same for all: `direct`."""
        direct, learned = self.direct.unsqueeze(2), self._steps.run.as_currents
        if not learned:
            return direct
        js = [j[self._k - 1].unsqueeze(-1) for j in learned.values()]
        return torch.cat([direct.expand(-1, -1, self.network.n_rec, -1), *js], dim=-1)

    def of_credit(self, c: Tensor) -> Tensor:
        """What credit of the currents c [B,K,N] says of each neuron's own parameters: cᵀ ∂I_t/∂own [B,N,X]."""
        own = torch.einsum("bkn,bkx->bnx", c, self.direct)
        js = [(c * j[self._k - 1]).sum(1).unsqueeze(-1) for j in self._steps.run.as_currents.values()]
        return torch.cat([own, *js], dim=-1) if js else own

    def gradient(self, own: Tensor) -> dict[str, Tensor]:
        """Gradients by parameter name, from those of every neuron's own parameters [N,X]."""
        return gradients_of_own(self.network, self.params, own)

    def synapses(self, W: Tensor) -> dict[str, Tensor]:
        """Gradients by parameter name, from those of all currents by all sources [K·N,Q], existing or not."""
        return gradients_of_currents(self.network, self.params, W)


def gradients_of_own(network: Structure, params: Mapping[str, Tensor], own: Tensor) -> dict[str, Tensor]:
    """Gradients by parameter name, from those of every neuron's own parameters [N,X]."""
    K, Q = network.neuron.n_currents, network.n_rec + network.n_in + ("b_rec" in params)
    synapses, rest = (own, None) if own.shape[1] == K * Q else (own[:, : K * Q], own[:, K * Q :])
    if K > 1:
        synapses = synapses.unflatten(-1, (K, Q)).movedim(1, 0).flatten(0, 1)
    grads = gradients_of_currents(network, params, synapses)
    if rest is None:
        return grads
    if "initial_state" in params:
        d = network.neuron.n_states
        grads["initial_state"], rest = rest[:, :d].mT, rest[:, d:]
    return {**grads, **dict(zip(_learned(network, params), rest.unbind(1), strict=True))}


def _learned(network: Structure, params: Mapping[str, Tensor]) -> list[str]:
    """Names of the parameters that neurons learn of their own."""
    return [name for name in network.neuron.learned if name in params]


def gradients_of_currents(network: Structure, params: Mapping[str, Tensor], W: Tensor) -> dict[str, Tensor]:
    """Gradients by parameter name, from those of all currents by all sources [K·N,Q], existing or not."""
    N, I = network.n_rec, network.n_in
    grads = {"W_rec": W[:, :N], "W_in": W[:, N : N + I]}
    if "b_rec" in params:
        grads["b_rec"] = W[:, -1]
    return grads


def own_influence(network: Network, params: Mapping[str, Tensor], batch: int) -> Tensor:
    """∂s_0/∂(own parameters) [B,d,X] of any neuron: a learned initial state acts on itself, nothing else does."""
    K, d = network.neuron.n_currents, network.neuron.n_states
    synapses = K * (network.n_rec + network.n_in + ("b_rec" in params))
    learned = d if "initial_state" in params else 0
    one = torch.zeros(d, synapses + learned + len(_learned(network, params)))
    one[:, synapses : synapses + learned] = torch.eye(d)[:, :learned]
    return one.to(params["W_rec"]).expand(batch, -1, -1)


def _apply(J: Tensor, S: Tensor) -> Tensor:
    """Per neuron J S: [B,rows,columns,N] and [B,columns,N,*] to [B,rows,N,*]."""
    J = J.reshape(*J.shape, *(1,) * (S.ndim - 3))
    if J.shape[1] == J.shape[2] == 1:
        return J.squeeze(1) * S
    rows = []
    for row in J.unbind(1):
        products = [a * b for a, b in zip(row.unbind(1), S.unbind(1), strict=True)]
        rows.append(sum(products[1:], products[0]))
    return torch.stack(rows, dim=1) if len(rows) > 1 else rows[0].unsqueeze(1)
