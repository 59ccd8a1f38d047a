"""The contract of a rule: from a problem (a network, its weights, a batch, a loss) to a gradient for every weight.

The trainer, the callbacks and the conformance suite know one method, `Rule.gradients`. A rule is written for one
network in operations that `torch.func.vmap` can batch, reads weights only from the problem it is handed and random
numbers only from `draws`. A regulariser of the weights and a given start, which replaces a learned one, are dealt with
here, for all rules: no rule ever sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bpgen.errors import BpgenError, RuleError, defined_in
from bpgen.losses import Loss
from bpgen.network import Network, Trajectory
from bpgen.network.readout import filtered_back
from bpgen.problem import Problem
from bpgen.rules.credit import Credit, weight_gradients
from bpgen.rules.feedback import Feedback
from bpgen.rules.traits import Traits

Draws = Mapping[str, Tensor]
NO_DRAWS: Draws = MappingProxyType({})


class RuleGradients(NamedTuple):
    """What a rule returns.

    loss: the true loss, 0-d (with the regularisers if the loss has any).
    outputs: [B,O] or [T,B,O].
    grads: by parameter name, the shape and dtype of each parameter.
    aux: whatever else a rule wants to report, by name.
    """

    loss: Tensor
    outputs: Tensor
    grads: dict[str, Tensor]
    aux: dict[str, Tensor]


class Rule(nn.Module):
    """Base of all rules. Hyper-parameters go to the constructor; what survives a batch is a buffer or parameter.

    A rule of the freest style writes `estimate`; `OfflineRule` and `OnlineRule` write it for the others.

    Attributes:
        traits: what the rule needs and costs; the conformance suite holds it to them.
        conformance_exceptions: checks of that suite (by name) that the rule fails for a reason, which it gives.
        suits: options of a run that suit the rule, e.g. {"optimizer.lr": 0.002}; each applies where the user gave none.
        when_diverged: what to try when a run diverges, beside a smaller learning rate; a sentence's end.
        trains_neurons: whether it has a gradient for what neurons learn of their own (`Neuron.learned`). Whatever comes
            from the credit of currents has one by itself.
    """

    traits: ClassVar[Traits] = Traits()
    conformance_exceptions: ClassVar[Mapping[str, str]] = {}
    suits: ClassVar[Mapping[str, Any]] = {}
    when_diverged: ClassVar[str] = ""
    trains_neurons: ClassVar[bool] = True

    @property
    def forward_passes(self) -> int:
        """How many times the network runs over the batch for one gradient; once, unless a rule says otherwise."""
        return 1

    def bind(self, network: Network, seed: int = 0) -> Rule:
        """Fit the rule to a network: draw what is fixed for life. Returns itself.

        A `Feedback` that the rule holds is bound here; override this for whatever else the rule needs.

        Args:
            network: the network to be trained.
            seed: for draws that the user gave no seed of their own.

        Raises:
            BpgenError: the rule is not defined for these neurons.
        """
        defined, name = self.traits.neurons, type(network.neuron).__name__
        if defined and name not in defined:
            raise BpgenError(f"{type(self).__name__} is defined for {', '.join(defined)}, not for {name}.")
        if network.neuron.learned and not self.trains_neurons:
            raise BpgenError(
                f"{type(self).__name__} has no gradient for {', '.join(network.neuron.learned)}: it trains weights "
                "alone. Leave out neuron.learn_alpha, or choose another rule (bptt, eprop, eprop_online, rtrl, ...)."
            )
        for part in self.children():
            if isinstance(part, Feedback):
                part.bind(network, seed)
        return self

    def check(self, loss: Loss) -> None:
        """See that the rule is defined for this loss; every loss will do by default.

        Raises:
            BpgenError: it is not, with what to use.
        """

    def draw(self, network: Network, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """The random numbers one call of `gradients` uses, by name; none by default."""
        return {}

    def gradients(self, problem: Problem, draws: Draws = NO_DRAWS) -> RuleGradients:
        """The rule's gradient of a problem's loss: what everybody calls, and nobody overrides.

        Args:
            problem: network, weights, batch and the true loss.
            draws: every random number used, as `draw` gave them.

        Raises:
            BpgenError: the rule refuses this loss or network.
            RuleError: what the rule returned is no gradient for every parameter.
        """
        self.check(problem.loss)
        return completed(self, self.estimate(as_rules_see_it(problem), draws), problem)

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """The rule itself: its gradient of the loss, for every parameter of the problem.

        Args:
            problem: its loss has no regulariser of the weights, and its parameters hold an `initial_state` only where
                that is learned and in use.
            draws: every random number used.
        """
        raise NotImplementedError

    def limit_weights(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that have to change for the rule to equal BPTT in the limit that its traits name; none by default.

        For the conformance suite, from weights by name: feedback through the signs of W_out is exact where W_out holds
        only signs.
        """
        return {}

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over what one batch taught the rule itself (a running mean, a synthesiser); nothing by default.

        `gradients` stays a function of its arguments: it hands new values out in `aux`, and whoever trains calls this
        once after each of its training batches, with the `RuleGradients.aux` of that, never after a measurement.
        """

    def forward(self, *args: Any) -> RuleGradients:
        """`gradients`, so that `torch.func.functional_call` can hand in the rule's own buffers per seed."""
        return self.gradients(*args)


class OfflineRule(Rule):
    """A rule that is one function from output error to the credit of every input current.

    The framework runs the network, differentiates the loss by the outputs, and turns credit into weight
    gradients with one matrix product per weight. W_out always gets its exact gradient. A regulariser of the
    activity tells each neuron something by itself alone, which `propagate` adds to the rule's learning signal.
    """

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit | Tensor:
        """Credit of the currents [L,B,K,N] at the last L steps, given ē [L',B,O] at the last L' steps.

        `error` is ∂L/∂y filtered back through the readout: what the activities h_t are told. A `Credit` may
        also carry the credit of the initial state.
        """
        raise NotImplementedError

    def told(self, trajectory: Trajectory, error: Tensor, draws: Draws) -> Tensor:
        """What `credit` is given of ∂L/∂y, e [L,B,O] at the last L steps: ē, as the activities h_t are told of it."""
        return filtered_back(error, trajectory.network.kappa, trajectory.n_steps)

    def estimate(self, problem: Problem, draws: Draws) -> RuleGradients:
        """See `Rule.estimate`."""
        run = problem.run()
        value, error = problem.value_and_error(run)
        credit = self.credit(run, self.told(run, error, draws))
        if not isinstance(credit, Credit):
            credit = Credit(credit)
        expected = [problem.batch, *run.currents_shape]
        if not isinstance(credit.currents, Tensor):
            where, kind = defined_in(type(self), "credit"), type(credit.currents).__name__
            raise RuleError(f"{where}: `credit` must be a tensor [L,B,K,N], got {kind}: does it return one?")
        if list(credit.currents.shape[1:]) != expected:
            found = list(credit.currents.shape)
            where = defined_in(type(self), "credit")
            raise RuleError(f"{where}: `credit` must be [L,B,K,N], with [B,K,N] = {expected}, got {found}.")
        grads = weight_gradients(run, credit, error)
        last = run.states[-1]  # [B,d,N]: from here the next chunk of the sequence goes on
        return RuleGradients(value, run.outputs, grads, {"last_state": last, **credit.aux})


def completed(rule: Rule, result: RuleGradients, problem: Problem, share: float = 1.0) -> RuleGradients:
    """What a rule returned, seen to be whole, with what is the same under every rule.

    A given start replaces the learned one, which then earns nothing; each weight earns its part of a regulariser.

    Args:
        rule: it is named where something is wrong.
        result: of `rule.estimate`.
        problem: what `gradients` was asked of.
        share: the part of the regulariser that belongs to this problem.

    Raises:
        RuleError: it is no `RuleGradients`, or a gradient is missing or has another shape or dtype than its parameter.
    """
    if not isinstance(result, RuleGradients):
        where, kind = defined_in(type(rule)), type(result).__name__
        raise RuleError(f"{where}: `estimate` must return RuleGradients(loss, outputs, grads), got {kind}.")
    grads, loss = dict(result.grads), result.loss
    if problem.initial_state is not None and "initial_state" in problem.params:
        grads["initial_state"] = torch.zeros_like(problem.params["initial_state"])
    for name, w in problem.params.items():
        g = grads.get(name)
        if not isinstance(g, Tensor) or g.shape != w.shape or g.dtype != w.dtype:
            found = f"{list(g.shape)} {g.dtype}" if isinstance(g, Tensor) else repr(g)
            raise RuleError(
                f"{defined_in(type(rule))}: the gradient of {name} must be {list(w.shape)} {w.dtype}, like the "
                f"parameter; it is {found}."
            )
    l2 = problem.loss.regulariser
    if l2 is not None:
        loss = loss + share * l2.value(problem.params)
        for name, gradient in l2.gradient(problem.params).items():
            grads[name] = grads[name] + share * gradient
    return RuleGradients(loss, result.outputs, {name: grads[name] for name in problem.params}, result.aux)


def as_rules_see_it(problem: Problem) -> Problem:
    """The problem as rules see it: without a regulariser of the weights, and without parameters that are not in use."""
    params, loss = problem.params, problem.loss
    if problem.initial_state is not None and "initial_state" in params:
        params = {name: w for name, w in params.items() if name != "initial_state"}
    if loss.regulariser is not None:
        loss = replace(loss, regulariser=None)
    unchanged = params is problem.params and loss is problem.loss
    return problem if unchanged else replace(problem, params=params, loss=loss)


def refuse_activity(rule: Rule, loss: Loss) -> None:
    """Refuse a loss with a regulariser of the activity, for what runs forward in time.

    Raises:
        BpgenError: the loss has one: its mean over the sequence is known at the end alone.
    """
    if loss.activity is not None:
        raise BpgenError(
            f"{type(rule).__name__} runs forward in time here, and a cost of the activity is a mean over the whole "
            "sequence: set loss.activity to 0, or use an offline rule on whole sequences (eprop, rflo, bptt, ...)."
        )
