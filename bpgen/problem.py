"""A problem: a network at given weights, a batch and a loss, as one value.

Everything that is asked of a network is asked of a problem: a rule's gradient, a Hessian product, the stability of an
update, a measurement. A problem is never changed; it gives parts and variants of itself. Losses are means over the
samples, so that what is asked of the parts adds up with their shares.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.network import Network, Trajectory

BATCH = ("x", "target", "initial_state", "current_noise", "readout_state")  # tensors of a problem beside its weights


@dataclass(frozen=True)
class Problem:
    """What a loss is taken of.

    network: structure and neurons; its own weights are not read.
    params: weights by name.
    x: inputs [T,B,I].
    target: classes int64 [B] (last) or [T,B] (all), or values [B,O] or [T,B,O].
    loss: the true loss, with its regularisers if it has any.
    initial_state: s_0 [B,d,N] where it is given; it replaces a learned one.
    current_noise: noise of the currents [T,B,K·N], or None.
    readout_state: what the readout's filter holds before the first step [B,N], where a sequence goes on, or None.
    """

    network: Network
    params: Mapping[str, Tensor]
    x: Tensor
    target: Tensor
    loss: Loss
    initial_state: Tensor | None = None
    current_noise: Tensor | None = None
    readout_state: Tensor | None = None

    @property
    def n_steps(self) -> int:
        """T."""
        return self.x.shape[0]

    @property
    def batch(self) -> int:
        """B."""
        return self.x.shape[1]

    # What it is asked

    def run(self, params: Mapping[str, Tensor] | None = None, in_place: bool | None = None) -> Trajectory:
        """The network's run over the batch, at other weights where they are given; `in_place` as for `Network.run`."""
        run = self.network.run(
            self.params if params is None else params,
            self.x,
            when=self.loss.when,
            initial_state=self.initial_state,
            current_noise=self.current_noise,
            in_place=in_place,
            r_0=self.readout_state,
        )
        run.activity = self.loss.cost
        return run

    def outputs(self) -> Tensor:
        """The network's outputs [B,O] or [T,B,O]."""
        return self.run(in_place=False).outputs

    def value_and_error(self, run: Trajectory) -> tuple[Tensor, Tensor]:
        """The loss of a run without its regulariser of the weights, 0-d, and e = ∂L/∂y [L,B,O] at the last L steps."""
        (value, error), cost = self.loss.data_and_error(run.outputs, self.target), self.loss.cost
        return value if cost is None else value + cost.value(run.h), error

    def per_sample(self, run: Trajectory) -> Tensor:
        """The loss of each sequence of a run [B], whose mean is the loss without its regulariser of the weights."""
        return self.loss.per_sample(run.outputs, self.target, run.h)

    def value(self, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """The loss, 0-d, regularisers included; a differentiable function of the weights `params`."""
        params = self.params if params is None else params
        run = self.run(params, in_place=False)
        return self.loss.total(run.outputs, self.target, params, run.h)

    def gradient(self) -> dict[str, Tensor]:
        """∂L/∂w of every parameter, by autograd through the whole run: what every rule is compared with."""
        params = {name: w.detach().clone().requires_grad_() for name, w in self.params.items()}
        with torch.enable_grad():
            grads = torch.autograd.grad(
                self.value(params), list(params.values()), allow_unused=True, materialize_grads=True
            )
        return dict(zip(params, grads, strict=True))

    # Variants and parts

    def at(self, **changed: Tensor) -> Problem:
        """The same problem at other weights; the module keeps its own."""
        return replace(self, params={**self.params, **changed})

    def without_regulariser(self) -> Problem:
        """The same problem, its loss without regularisers."""
        return replace(self, loss=self.loss.without_regulariser())

    def samples(self, part: slice | Tensor) -> Problem:
        """The same problem on a part of its batch."""
        target, loss = self.loss.of_samples(self.target, part)
        noise, start, r_0 = self.current_noise, self.initial_state, self.readout_state
        return replace(
            self,
            x=self.x[:, part],
            target=target,
            loss=loss,
            initial_state=None if start is None else start[part],
            current_noise=None if noise is None else noise[:, part],
            readout_state=None if r_0 is None else r_0[part],
        )

    def steps(self, part: slice) -> Problem:
        """The same problem on a part of its steps; a target of the last step stays."""
        target, loss = self.loss.of_steps(self.target, part)
        noise = None if self.current_noise is None else self.current_noise[part]
        return replace(self, x=self.x[part], target=target, loss=loss, current_noise=noise)

    def chunks(self, size: int) -> Iterator[tuple[Problem, float]]:
        """Parts of at most `size` samples, each with its share of the loss."""
        for first in range(0, self.batch, size):
            part = self.samples(slice(first, first + size))
            yield part, part.batch / self.batch

    def to(self, to: torch.dtype | torch.device) -> Problem:
        """The same problem in another precision, with a network of its own, or on another device."""
        network = copy.deepcopy(self.network).to(to)
        return replace(self._each(lambda t: t.to(to) if _follows(t, to) else t), network=network)

    def detached(self) -> Problem:
        """The same problem in tensors that autograd may save, which it refuses to do with those of inference mode."""
        with torch.inference_mode(False):
            return self._each(lambda t: t.clone() if t.is_inference() else t.detach())

    def _each(self, change: Any) -> Problem:
        """The same problem with every tensor of its weights and batch changed."""
        mask = self.loss.mask
        given: dict[str, Any] = {n: getattr(self, n) for n in BATCH}
        given = {name: None if value is None else change(value) for name, value in given.items()}
        return replace(
            self,
            params={name: change(w) for name, w in self.params.items()},
            loss=self.loss.with_mask(None if mask is None else change(mask)),
            **given,
        )

    def checked(self) -> Problem:
        """Itself, once x, target, mask and initial state are seen to fit the network and the loss.

        Raises:
            BpgenError: what does not fit, and what was expected.
        """
        network, x, start = self.network, self.x, self.initial_state
        I, d, N = network.n_in, network.neuron.n_states, network.n_rec
        require(
            x.ndim == 3 and x.shape[-1] == I and x.shape[0] > 0 and x.shape[1] > 0,
            f"x must be [T,B,I] with I={I} (time first), got {list(x.shape)}.",
        )
        require(x.dtype == network.W_rec.dtype, f"x is {x.dtype}, the network is {network.W_rec.dtype}: convert one.")
        self.loss.check(self.target, self.n_steps, self.batch, network.n_out)
        require(
            start is None or list(start.shape) == [self.batch, d, N],
            f"initial_state must be [B,d,N] = {[self.batch, d, N]}.",
        )
        return self if start is None else replace(self, initial_state=start.to(x.dtype))


def _follows(tensor: Tensor, to: torch.dtype | torch.device) -> bool:
    """Whether a tensor takes part in a change of precision: integers and booleans keep theirs."""
    return isinstance(to, torch.device) or tensor.is_floating_point()
