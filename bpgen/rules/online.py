"""Online rules: forward in time, with a memory that does not grow with the length of the sequence.

    state_0 = start(network, params, batch)
    state_t, increments_t = step(state_{t-1}, moment_t),    ∂L/∂θ ≈ Σ_t increments_t
The future is not an argument of `step`. A whole sequence (`OnlineRule.gradients`) and a stream that is cut into chunks,
with a weight change after each (`gradients_of_chunk`), are the same loop; what passes from chunk to chunk is a `Carry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.rules.base import OfflineRule, Rule, RuleGradients, refuse_activity
from bpgen.rules.moment import Moment

State = dict[str, Tensor]
Increments = dict[str, Tensor]


class Carry(NamedTuple):
    """What goes on from one chunk of a sequence to the next.

    t: steps made so far. s [B,d,N], h, r [B,N]: the network at t. state: the rule's own.
    """

    t: int
    s: Tensor
    h: Tensor
    r: Tensor
    state: State

    def save(self) -> dict[str, Any]:
        """As plain tensors and numbers, for a checkpoint."""
        return self._asdict()

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Carry:
        """From what `save` gave."""
        return cls(**saved)


class OnlineRule(Rule):
    """A rule that moves forward in time with the network. A subclass writes `start` and `step`.

    W_out and b_out always get their exact gradient, e_t r_tᵀ and e_t, from the framework. Random numbers come from
    `draw`, whose tensors are time first, [T,...]; a moment holds those of its own step.
    """

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """The state before the first step of `batch` sequences: tensors by name.

        Args:
            network: structure and neurons; its own weights are not to be read.
            params: weights by name, masked; `initial_state` only if it is learned and in use.
            batch: B.
        """
        raise NotImplementedError

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """The next state, and what this step adds to the gradient of each weight.

        A weight that is left out gets nothing. Entries under other names are added up in the result's `aux`: what the
        rule itself wants to learn from (`Rule.learn`).
        """
        raise NotImplementedError

    def begin(
        self, network: Network, params: Mapping[str, Tensor], batch: int, initial_state: Tensor | None = None
    ) -> Carry:
        """Network and rule before the first step; arguments as for `start`, with s_0 [B,d,N] or None."""
        if network.W_fb is not None:
            raise BpgenError(f"{type(self).__name__} is not defined for networks with output feedback.")
        s = network.start(params, batch, initial_state)
        h = network.neuron.g(s)
        return Carry(0, s, h, torch.zeros_like(h), self.start(network, _in_use(network, params, initial_state), batch))

    def advance(
        self,
        network: Network,
        params: Mapping[str, Tensor],
        carry: Carry,
        x: Tensor,
        target: Tensor,
        loss: Loss,
        draws: Mapping[str, Tensor],
        ends: bool = True,
    ) -> tuple[Carry, RuleGradients]:
        """Go on for the steps of x [k,B,I]; arguments as for `gradients`, without the regulariser.

        Args:
            carry: where to go on from.
            ends: whether the sequence ends with the last of these steps.
        """
        refuse_activity(self, loss)
        used, n_steps = _in_use(network, params, draws.get("initial_state")), len(x)
        t, s, h, r, state = carry
        own_draws = {n: v for n, v in draws.items() if n not in ("initial_state", "current_noise")}
        noise, weights = draws.get("current_noise"), _step_weights(loss, x)
        total: dict[str, Tensor] = {name: torch.zeros_like(p) for name, p in params.items()}
        aux: dict[str, Tensor] = {}
        value, outputs = x.new_zeros(()), []
        for k in range(n_steps):
            s_before, h_before = s, h
            I, s, h = network.advance(used, s, h, x[k], None if noise is None else noise[k])
            r = h if network.kappa == 0 else network.kappa * r + (1 - network.kappa) * h
            y = F.linear(r, used["W_out"], used.get("b_out"))
            error = None
            if loss.when == "all" or k == n_steps - 1:
                now = loss if weights is None else replace(loss, mask=weights[k : k + 1])
                of_step = (y, target) if loss.when == "last" else (y.unsqueeze(0), target[k : k + 1])
                part, error = now.data_and_error(*of_step)
                error, value = error.squeeze(0), value + part
                outputs.append(y)
                total["W_out"] = total["W_out"] + error.mT @ r
                if "b_out" in total:
                    total["b_out"] = total["b_out"] + error.sum(0)
            now_draws = {name: draw[k] for name, draw in own_draws.items()}
            last = ends and k == n_steps - 1
            moment = Moment(network, used, t + k + 1, x[k], I, s_before, h_before, s, h, r, error, last, now_draws)
            state, increments = self.step(state, moment)
            for name, increment in increments.items():
                sums = total if name in total else aux
                sums[name] = sums[name] + increment if name in sums else increment
        result = torch.stack(outputs) if loss.when == "all" else outputs[-1]
        return Carry(t + n_steps, s, h, r, state), RuleGradients(value, result, total, aux)

    def gradients(
        self,
        network: Network,
        params: Mapping[str, Tensor],
        x: Tensor,
        target: Tensor,
        loss: Loss,
        draws: Mapping[str, Tensor],
    ) -> RuleGradients:
        """See `Rule.gradients`: the sum over a whole sequence at fixed weights."""
        carry = self.begin(network, network.masked(params), x.shape[1], draws.get("initial_state"))
        result = self.advance(network, network.masked(params), carry, x, target, loss, draws)[1]
        return _regularised(result, params, loss)


def gradients_of_chunk(
    rule: Rule,
    network: Network,
    params: Mapping[str, Tensor],
    carry: Carry | None,
    x: Tensor,
    target: Tensor,
    loss: Loss,
    draws: Mapping[str, Tensor],
    ends: bool = False,
    share: float = 1.0,
) -> tuple[Carry, RuleGradients]:
    """The gradient of a rule on the next k steps of a sequence, and what to carry on.

    An online rule carries its state over. An offline rule goes on from the network's state, and its credit is cut at
    the boundary: it is truncated to the chunk.

    Args:
        rule: an online or offline rule.
        network: structure and neurons.
        params: weights by name.
        carry: what the chunk before returned; None at the start of a sequence.
        x: inputs [k,B,I].
        target: of every step, [k,B] or [k,B,O].
        loss: with when="all" and the steps' weights as its mask.
        draws: as for `Rule.gradients`, for these k steps.
        ends: whether the sequence ends here.
        share: the part of the regulariser that this chunk pays.

    Raises:
        BpgenError: the rule needs whole sequences.
    """
    check_chunks(rule, network)
    refuse_activity(rule, loss)
    if isinstance(rule, OnlineRule):
        masked = network.masked(params)
        if carry is None:
            carry = rule.begin(network, masked, x.shape[1])
        carry, result = rule.advance(network, masked, carry, x, target, loss, draws, ends)
        return carry, _regularised(result, params, loss, share)
    assert isinstance(rule, OfflineRule)
    if carry is not None:
        draws = {**draws, "initial_state": carry.s}
    result = rule.gradients(network, params, x, target, loss.without_regulariser(), draws)
    s = result.aux["last_state"].clone()  # a view of buffers that the run had for itself
    h = network.neuron.g(s)
    carry = Carry((carry.t if carry else 0) + len(x), s, h, h, {})
    return carry, _regularised(result, params, loss, share)


def check_chunks(rule: Rule, network: Network) -> None:
    """Whether a rule can go on from chunk to chunk.

    Raises:
        BpgenError: it needs whole sequences.
    """
    name = type(rule).__name__
    if not isinstance(rule, (OnlineRule, OfflineRule)):
        raise BpgenError(f"{name} needs whole sequences: leave out trainer.chunk, or choose an online rule.")
    if isinstance(rule, OfflineRule) and network.W_fb is not None:
        raise BpgenError(
            f"{name} is an offline rule: in chunks it would lose the output y that network.output_feedback hands on to "
            f"the next step. Use whole sequences."
        )
    if isinstance(rule, OfflineRule) and network.kappa > 0:
        raise BpgenError(
            f"{name} is an offline rule: in chunks it would cut the readout's filter (network.kappa {network.kappa:g}) "
            f"at every boundary. Use --network.kappa 0, whole sequences, or an online rule."
        )


def _in_use(network: Network, params: Mapping[str, Tensor], initial_state: Tensor | None) -> Mapping[str, Tensor]:
    """The parameters that act: a given start replaces the learned one, which then earns nothing."""
    return params if initial_state is None else {n: p for n, p in params.items() if n != "initial_state"}


def _step_weights(loss: Loss, x: Tensor) -> Tensor | None:
    """m [T,B], fixed beforehand; None where the loss is taken once, at the last step."""
    if loss.when == "last":
        return None
    if loss.mask is not None:
        return loss.mask.to(x.dtype)
    return x.new_full((1, 1), 1 / len(x) if loss.kind == "cross_entropy" else 1.0).expand(*x.shape[:2])


def _regularised(result: RuleGradients, params: Mapping[str, Tensor], loss: Loss, share: float = 1.0) -> RuleGradients:
    """The result with that share of the loss's regulariser, in loss and gradients."""
    if loss.regulariser is None:
        return result
    grads = dict(result.grads)
    for name, gradient in loss.regulariser.gradient(params).items():
        grads[name] = grads[name] + share * gradient
    return result._replace(loss=result.loss + share * loss.regulariser.value(params), grads=grads)
