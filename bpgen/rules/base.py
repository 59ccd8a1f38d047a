"""The contract of a rule: from a network, its weights and a batch to a gradient for every weight.

The trainer, the callbacks and the conformance suite know one method, `Rule.gradients`. A rule is written for one
network in operations that `torch.func.vmap` can batch, reads weights only from the `params` it is handed and
random numbers only from `draws`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.network import Network, Trajectory
from bpgen.network.readout import filtered_back
from bpgen.rules.credit import Credit, weight_gradients
from bpgen.rules.feedback import Feedback
from bpgen.rules.traits import Traits


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

    Attributes:
        traits: what the rule needs and costs; the conformance suite holds it to them.
        conformance_exceptions: checks of that suite (by name) that the rule fails for a reason, which it gives.
    """

    traits: ClassVar[Traits] = Traits()
    conformance_exceptions: ClassVar[Mapping[str, str]] = {}

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

    def gradients(
        self,
        network: Network,
        params: Mapping[str, Tensor],
        x: Tensor,
        target: Tensor,
        loss: Loss,
        draws: Mapping[str, Tensor],
    ) -> RuleGradients:
        """The rule's gradient of `loss` on a batch.

        Args:
            network: structure and neurons; its own weights are not to be read.
            params: weights by name.
            x: inputs [T,B,I].
            target: classes int64 [B] or [T,B], or values [B,O] or [T,B,O].
            loss: always the true loss.
            draws: every random number used, and optionally "current_noise" [T,B,K·N] and "initial_state" [B,d,N].
        """
        raise NotImplementedError

    def learn(self, aux: Mapping[str, Tensor]) -> None:
        """Take over what one batch taught the rule itself (a running mean, a synthesiser); nothing by default.

        `gradients` stays a function of its arguments: it hands new values out in `aux`, and whoever trains calls this
        once after each of its training batches, never after a measurement.

        Args:
            aux: of the `RuleGradients` of that batch.
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

    def gradients(
        self,
        network: Network,
        params: Mapping[str, Tensor],
        x: Tensor,
        target: Tensor,
        loss: Loss,
        draws: Mapping[str, Tensor],
    ) -> RuleGradients:
        """See `Rule.gradients`."""
        trajectory = network.run(
            params,
            x,
            when=loss.when,
            initial_state=draws.get("initial_state"),
            current_noise=draws.get("current_noise"),
        )
        value, error = loss.data_and_error(trajectory.outputs, target)
        if loss.activity is not None:
            value = value + loss.activity.value(trajectory.h)
            trajectory = replace(trajectory, activity=loss.activity)
        credit = self.credit(trajectory, filtered_back(error, network.kappa, trajectory.n_steps))
        if not isinstance(credit, Credit):
            credit = Credit(credit)
        if "initial_state" in draws:  # a given start replaces the learned one, which then earns nothing
            credit = credit._replace(initial=None)
        grads = weight_gradients(trajectory, credit, error)
        if loss.regulariser is not None:
            value = value + loss.regulariser.value(params)
            for name, gradient in loss.regulariser.gradient(params).items():
                grads[name] = grads[name] + gradient
        last = trajectory.states[-1]  # [B,d,N]: from here the next chunk of the sequence goes on
        return RuleGradients(value, trajectory.outputs, {name: grads[name] for name in params}, {"last_state": last})


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
