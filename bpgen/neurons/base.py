"""What a neuron is: per-neuron dynamics s_t = f(s_{t-1}, I_t), h_t = g(s_t). No sum over neurons in here.

A new neuron is `f`, `g` and the numbers d and K, nothing else: its derivatives come from forward mode. A
neuron that knows closed forms overrides `local`, and is tested against the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from bpgen.errors import require
from bpgen.neurons.gain import Dense, Local


class Recording(Protocol):
    """What a neuron may look at to give its derivatives: its own states, currents and activities.

    states: [T+1,B,d,N]. currents: [T+1,B,K,N], entry 0 unused; computed when asked for. h: [T+1,B,N].
    in_place: whether these are plain tensors, that neither autograd nor vmap nor jvp follows.
    """

    @property
    def states(self) -> Tensor: ...  # noqa: D102
    @property
    def currents(self) -> Tensor: ...  # noqa: D102
    @property
    def h(self) -> Tensor: ...  # noqa: D102

    in_place: bool


class Neuron(nn.Module):
    """Base of all neurons. It holds no rule, no time loop and no loss.

    Attributes:
        n_states: d, state components per neuron.
        n_currents: K, input currents per neuron.
        noise_scale: factor from `sigma_rec` to the standard deviation of the current noise per step, a number or [N].
        spiking: whether the activity jumps and its derivative is a surrogate (`bpgen.neurons.surrogate`): gradients
            and curvature are then those of the surrogate network, and what is measured of them says so in its name.
        recurrent_currents: which of the K currents the recurrent activity reaches; None is all. The other blocks
            of W_rec are masked by the network: no effect, no gradient, no curvature.
        input_currents: the same for the inputs and W_in. Biases and noise reach all currents.
        derivatives_agree: whether `local` and autograd through `f` and `g` have the same first and second derivatives.
            True is said by a class whose tests prove it, and of that class alone, never of those derived from it; for
            all others it is found out before it is relied upon (`bpgen.curvature.proof`). False leaves curvature to
            autograd.
    """

    n_states: int = 1
    n_currents: int = 1
    noise_scale: float | Tensor = 1.0
    spiking: bool = False
    recurrent_currents: tuple[int, ...] | None = None
    input_currents: tuple[int, ...] | None = None
    derivatives_agree: bool | None = None

    @property
    def learned(self) -> dict[str, Tensor]:
        """Parameters [N] of a population that training changes, by name, at their start; none by default."""
        return {}

    def at(self, params: Mapping[str, Tensor]) -> Neuron:
        """The population with the learned parameters that stand among `params`; itself where none does."""
        return self

    def as_currents(self, s: Tensor, I: Tensor) -> dict[str, Tensor]:
        """What each learned parameter θ does, as a current j [...,K,N]: f(s, I; θ + dθ) = f(s, I + j dθ; θ) + O(dθ²).

        So it is to every rule one more synapse of its own neuron, whose presynaptic side is j.

        Args:
            s: states before the step [...,d,N].
            I: its currents [...,K,N].
        """
        return {}

    @property
    def piecewise_linear(self) -> bool:
        """Whether all second derivatives of `f` and `g` vanish, so that none need be taken."""
        return False

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Next state [...,d,N] from the state [...,d,N] and the currents [...,K,N]; elementwise over neurons."""
        raise NotImplementedError

    def g(self, s: Tensor) -> Tensor:
        """Activity [...,N] (rate or spike) of a state [...,d,N]."""
        raise NotImplementedError

    def populate(self, N: int, random: torch.Generator, dtype: torch.dtype) -> Neuron:
        """This neuron as a population of N, as a network takes it: itself, or a copy whose parameters are per neuron.

        Args:
            N: number of neurons.
            random: where parameters that differ between neurons are drawn from.
            dtype: floating type of the network.

        Raises:
            BpgenError: parameters for another number of neurons.
        """
        return self

    def check(self, N: int, dtype: torch.dtype) -> None:
        """See that a network of N can be made of this population.

        Raises:
            BpgenError: it holds parameters, or f or g do not fit the numbers of states and currents.
        """
        name, d, K = type(self).__name__, self.n_states, self.n_currents
        own = [own_name for own_name, _ in self.named_parameters()]
        require(
            not own,
            f"{name} holds the parameters {', '.join(own)}: a neuron is fixed; keep them as buffers or numbers.",
        )
        s, I = torch.zeros(2, d, N, dtype=dtype), torch.zeros(2, K, N, dtype=dtype)
        for what, got, expected in (("f", self.f(s, I), [2, d, N]), ("g", self.g(s), [2, N])):
            require(
                list(got.shape) == expected,
                f"{name}.{what} gives {list(got.shape)} of states [2,d,N] = {list(s.shape)} and currents [2,K,N] = "
                f"{list(I.shape)}; expected {expected}. Its n_states is d and its n_currents is K.",
            )

    def local(self, recording: Recording) -> Local:
        """Gains A, C, D along a trajectory, by forward mode: d + K elementwise passes."""
        states, currents = recording.states, recording.currents
        before = torch.cat([states[:1], states[:-1]])  # entry 0 has no predecessor and is never asked for
        A = _jacobian(lambda s: self.f(s, currents), before)
        C = _jacobian(lambda I: self.f(before, I), currents)
        D = _jacobian(lambda s: self.g(s).unsqueeze(-2), states)
        return Local(Dense(A), Dense(C), Dense(D))

    # In-place evaluation: for d = K = 1, and for neurons that say so and can go back as well.

    @property
    def in_place(self) -> bool:
        """Whether a run may overwrite its buffers by `advance_into`."""
        return self.n_states == self.n_currents == 1

    def state_buffer(self, drive: Tensor, h: Tensor) -> Tensor:
        """The buffer [T+1,B,N] that will hold the states: `drive` (the currents) or `h` to overwrite one.

        With d > 1 a new one [T+1,B,d,N].
        """
        return torch.empty_like(h)

    def fold(self, drive: Tensor, W: Tensor) -> Tensor:
        """Take into drive and weights, once, what `f` would do to their sum at every step.

        Args:
            drive: the currents [T,B,K·N] without their recurrent part; may be overwritten.
            W: the transposed recurrent weights [N,K·N]; never overwritten.

        Returns:
            The weights that carry h_{t-1} into what `advance_into` is given as I_t.
        """
        return W

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Write the next state into `s` and the activity into `h`.

        All arguments are [B,N]; with K > 1 the currents are [B,K,N] and may be overwritten by whatever `retreat_into`
        needs of them, with d > 1 the states are [B,d,N].
        """
        after = self.f(before.unsqueeze(-2), I.unsqueeze(-2))
        h.copy_(self.g(after))
        s.copy_(after.squeeze(-2))

    def retreat_into(self, arriving: Tensor, later: Tensor, left: Tensor, before: Tensor, s: Tensor, c: Tensor) -> None:
        """One step back in time, of what `advance_into` did with K > 1: equations (1), (2) of the credit kernel.

        Args:
            arriving: credit of h_t [B,N] from its learning signal and from other neurons; may be overwritten.
            later: A_{t+1}ᵀ λ_{t+1} [B,d,N], the credit of s_t by s_{t+1}; overwritten by A_tᵀ λ_t, that of s_{t-1}.
            left: what `advance_into` left of I_t [B,K,N].
            before: s_{t-1} [B,N], with d > 1 [B,d,N].
            s: s_t, likewise.
            c: the credit of I_t [B,K,N], to be written.
        """
        raise NotImplementedError


def _jacobian(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Per-neuron Jacobian [...,rows,columns,N] of an elementwise map [...,columns,N] -> [...,rows,N]."""
    one, zero = torch.ones_like(point[..., 0, :]), torch.zeros_like(point[..., 0, :])
    columns = []
    for k in range(point.shape[-2]):
        unit = torch.stack([one if j == k else zero for j in range(point.shape[-2])], dim=-2)
        columns.append(torch.func.jvp(function, (point,), (unit,))[1])
    return torch.stack(columns, dim=-2)
