"""A recurrent network: linear currents into per-neuron dynamics.

    (1) I_t = W_rec h_{t-1} + W_in x_t + b_rec      the only place where one neuron drives another   [B,K,N]
              + W_fb y_{t-1}                        where the network has output feedback, with y_0 = 0
    (2) s_t = f(s_{t-1}, I_t),  h_t = g(s_t)        per neuron (`bpgen.neurons`)                     [B,d,N], [B,N]
    (3) r_t = κ r_{t-1} + (1-κ) h_t,  y_t = W_out r_t + b_out                                        [B,O]

W_fb [K·N,O] is fixed (Sussillo & Abbott 2009, Neuron 63:544). It gives the error one more way back, y_{t-1} -> I_t,
which `bptt` and `tbptt` in blocks follow (`bpgen.rules.output_feedback`). Offline rules that keep credit in its neuron
drop it: to them y_{t-1} is one more input, and W_out, b_out get the gradient of y_t as the output alone. Masks, signs
and W_fb are structure and no parameters: seeds that are stacked in one network by vmap share them.

Axes: T steps, B batch, I inputs, N neurons, O outputs, d states and K currents per neuron. Time comes first,
weights are [post, pre]. h_0 = g(s_0) always.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpgen.errors import choice, require
from bpgen.memory import require_bytes
from bpgen.network.cell_types import project_signs
from bpgen.network.initialisation import INITIALISATIONS
from bpgen.network.loop import is_traced, run_general, run_in_place
from bpgen.network.structure import Structure
from bpgen.network.trajectory import Trajectory
from bpgen.network.wiring import Connectivity, Wiring
from bpgen.neurons import Neuron
from bpgen.streams import generator

Bias = Literal["none", "rec", "out", "both"]
InitName = Literal["liu2022", "glorot2010", "saxe2014", "sompolinsky1988"]


class Network(Structure):
    """Recurrent network with parameters W_rec [K·N,N], W_in [K·N,I], b_rec [K·N], W_out [O,N], b_out [O].

    A parameter that the options leave out is None. A learned initial state is `initial_state` [d,N]; what neurons learn
    of their own (`Neuron.learned`, e.g. alpha_logit [N]) are parameters as well, and `at(params()).neuron` the neurons
    at their present values. Blocks of W_rec
    and W_in that lead to a current which does not see the activity or the input (see `Neuron`) start at zero and are
    masked as autapses are.

    Args:
        neuron: dynamics of a neuron.
        n_in: number of inputs I.
        n_rec: number of recurrent neurons N.
        n_out: number of outputs O.
        autapses: whether a neuron may drive itself. If not (as in Liu 2022), the diagonal of W_rec is masked in
            the forward pass: what is stored there has no effect and no gradient.
        bias: which biases exist: none, rec, out or both.
        init: scheme of the initial weights, named after its source.
        kappa: decay per step of the readout filter, in [0, 1); 0 reads the activity itself.
        trainable_initial_state: whether the state at the start of a sequence is learned (from zero).
        sigma_rec: strength σ of the noise in the recurrent currents during training; for leaky neurons the
            current noise has standard deviation σ √(2/α) per step, as is usual in this field.
        seed: seed of the initial weights; they are drawn in float64 and then cast, so that one seed gives one
            network in every dtype.
        dtype: floating type of the parameters.
        cell_types: fraction of the neurons by name of their type, e.g. {E: 0.8, I: 0.2}, in contiguous blocks; none is
            one type.
        dale: whether a neuron's outgoing weights in W_rec keep one sign (Dale's law): types named E... excite, types
            named I... inhibit; after every step a weight of the other sign is set to zero. Meant for activities >= 0.
        density: probability that a synapse between two neurons exists, in (0, 1]; drawn from the seed. What does not
            exist is masked and starts at zero.
        ring: only synapses between neurons at most this many places apart on a ring; none is all.
        areas: blocks of neurons by name, in their order; none is one area that does everything. Each has
            size: fraction of the neurons, or their number;
            input, readout: whether it sees the input and whether the readout sees it; false unless said;
            from: densities in [0, 1] of the projections it receives, by the area they come from. Within itself an area
            is fully connected unless it names itself. `density` and `ring` thin all of them out.
            Activity takes one step from area to area, so that a stack of recurrent layers is, e.g.,
            {V1: {size: 0.5, input: true}, PFC: {size: 0.5, readout: true, from: {V1: 0.2}}}. Weights that do not exist
            are masked and start at zero, in W_in and W_out as well. Each area has all cell types; random feedback of an
            error and output feedback reach all areas.
        torus: σ of a connectivity by distance: neurons are placed at random on a torus, and a synapse exists with the
            probability 1/(1 + exp(d²/(4σ))) (`bpgen.network.torus`; 0.012 in Barretto-Bittar 2026); none is all.
        readout_density: fraction of the neurons that an output reads, in (0, 1], drawn from the seed for every output.
        input_density: probability that a neuron sees an input, in (0, 1], drawn from the seed.
        rescale: whether what `density`, `torus`, `input_density` and `readout_density` leave of the initial weights is
            scaled up, so that the summed variance stays (equations (1) to (3) of `bpgen.network.wiring`), or stays
            as drawn.
        output_feedback: scale of the fixed weights W_fb by which the output of the step before drives the neurons,
            drawn uniformly in ± this number from the seed; 0 is no feedback.

    Raises:
        BpgenError: an option outside its range.
    """

    W_rec: nn.Parameter
    W_in: nn.Parameter
    W_out: nn.Parameter

    def __init__(
        self,
        neuron: Neuron,
        n_in: int,
        n_rec: int = 128,
        n_out: int = 1,
        *,
        autapses: bool = False,
        bias: Bias = "out",
        init: InitName = "liu2022",
        kappa: float = 0.0,
        trainable_initial_state: bool = False,
        sigma_rec: float = 0.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        cell_types: dict[str, float] | None = None,
        dale: bool = False,
        density: float = 1.0,
        ring: int | None = None,
        areas: dict[str, dict[str, Any]] | None = None,
        torus: float | None = None,
        readout_density: float = 1.0,
        input_density: float = 1.0,
        rescale: bool = True,
        output_feedback: float = 0.0,
    ) -> None:
        for name, size in (("n_in", n_in), ("n_rec", n_rec), ("n_out", n_out)):
            require(isinstance(size, int) and size >= 1, f"network.{name} must be a positive number, got {size}.")
        require(0 <= kappa < 1, f"network.kappa must be in [0, 1), got {kappa}.")
        require(sigma_rec >= 0, f"network.sigma_rec must be >= 0, got {sigma_rec}.")
        require(0 <= output_feedback < math.inf, f"network.output_feedback must be >= 0, got {output_feedback}.")
        choice("bias", bias, Bias)
        choice("init", init, InitName)
        _require_room(neuron.n_currents * n_rec * (n_rec + n_in), n_rec)
        neuron = neuron.populate(n_rec, generator(seed, "neuron"), dtype)
        neuron.check(n_rec, dtype)
        connectivity = Connectivity(
            autapses, cell_types, dale, density, ring, areas, torus, readout_density, input_density, rescale
        )
        wiring = connectivity.draw(neuron, n_rec, n_in, n_out, generator(seed, "synapses"))
        W_fb = None
        if output_feedback > 0:
            rows = neuron.n_currents * n_rec
            W_fb = wiring.feedback(rows, n_out, output_feedback, generator(seed, "output feedback"))
        super().__init__(neuron, n_in, n_out, kappa, wiring, W_fb, dtype)
        self.sigma_rec, self.autapses, self.density, self.ring = float(sigma_rec), autapses, density, ring
        self._draw(wiring, init, generator(seed, "init"), dtype)
        self.b_rec = _zeros(neuron.n_currents * n_rec, dtype=dtype) if bias in ("rec", "both") else None
        self.b_out = _zeros(n_out, dtype=dtype) if bias in ("out", "both") else None
        self.initial_state = _zeros(neuron.n_states, n_rec, dtype=dtype) if trainable_initial_state else None
        for name, value in neuron.learned.items():
            self.register_parameter(name, nn.Parameter(value.to(dtype)))

    def _draw(self, wiring: Wiring, init: InitName, random: torch.Generator, dtype: torch.dtype) -> None:
        """Initial weights of a scheme, made to fit the wiring."""
        sizes = self.neuron.n_currents, self.n_rec, self.n_in, self.n_out
        weights = wiring.fit(*INITIALISATIONS[init](*sizes, random))
        self.W_rec, self.W_in, self.W_out = (nn.Parameter(W.to(dtype)) for W in weights)

    def params(self) -> dict[str, Tensor]:
        """The parameters by name, detached: what `run` and every rule are handed."""
        return {name: p.detach() for name, p in self.named_parameters()}

    def project_(self) -> None:
        """Set weights whose sign breaks Dale's law to zero, in place; `RuleTraining` does so after every step."""
        if self.signs is not None:
            with torch.no_grad():
                project_signs(self.W_rec, self.signs)

    def draw_noise(self, n_steps: int, batch: int, random: torch.Generator) -> Tensor | None:
        """Current noise [T,B,K·N] of standard deviation sigma_rec · neuron.noise_scale; None without noise."""
        if self.sigma_rec == 0:
            return None
        K, N = self.neuron.n_currents, self.n_rec
        noise = torch.randn(n_steps, batch, K * N, generator=random, dtype=torch.float64).unflatten(-1, (K, N))
        scale = self.neuron.noise_scale
        scale = scale.cpu() if isinstance(scale, Tensor) else scale  # noise is drawn on the CPU
        return (noise * (self.sigma_rec * scale)).flatten(-2).to(self.W_rec)

    def run(
        self,
        params: Mapping[str, Tensor],
        x: Tensor,
        *,
        when: Literal["last", "all"] = "last",
        initial_state: Tensor | None = None,
        current_noise: Tensor | None = None,
        in_place: bool | None = None,
        r_0: Tensor | None = None,
        h_0: Tensor | None = None,
    ) -> Trajectory:
        """Run a batch of sequences at the weights `params`; nothing is read from the module behind its back.

        Args:
            params: weights by name.
            x: inputs [T,B,I].
            when: whether the outputs are wanted at the "last" step or at "all" steps.
            initial_state: s_0 [B,d,N], or None.
            current_noise: [T,B,K·N], or None.
            in_place: take the fast path that overwrites buffers. By default it is taken where the neurons know it
                (`Neuron.in_place`), there is no output feedback and nothing is traced by autograd, vmap or jvp; both
                paths give the same numbers.
            r_0: what the readout's filter holds before the first step [B,N], where a sequence goes on; None is nothing.
            h_0: g(s_0) [B,N], where it is known.
        """
        params, here = self.masked(params), self.at(params)
        s_0 = self.start(params, x.shape[1], initial_state)
        if in_place is None:
            simple = here.neuron.in_place and self._buffers["W_fb"] is None
            given = (x, s_0, *params.values(), *(() if current_noise is None else (current_noise,)))
            in_place = simple and not is_traced(*given)
        from_rest = self.silent_at_rest and initial_state is None and "initial_state" not in params
        loop = run_in_place if in_place else run_general
        h, states, currents, left = loop(here, params, x, current_noise, s_0, h_0, from_rest)
        trajectory = Trajectory(
            here, params, x, h, states, h, in_place, current_noise, currents, from_rest, None, r_0, left
        )
        if when == "all":
            read = trajectory.r
        else:
            read = h[-1] if self.kappa == 0 else trajectory.r[-1]
        trajectory.outputs = F.linear(read, params["W_out"], params.get("b_out"))
        return trajectory

    def forward(self, x: Tensor, when: Literal["last", "all"] = "last", initial_state: Tensor | None = None) -> Tensor:
        """Outputs [B,O] or [T,B,O] of inputs x [T,B,I], differentiable by autograd.

        Raises:
            BpgenError: x is no [T,B,I].
        """
        require(
            isinstance(x, Tensor) and x.ndim == 3 and x.shape[-1] == self.n_in,
            f"x must be a tensor [T,B,I] with I={self.n_in} (time first), "
            f"got {list(x.shape) if isinstance(x, Tensor) else type(x).__name__}.",
        )
        params = dict(self.named_parameters())
        return self.run(params, x, when=when, initial_state=initial_state, in_place=False).outputs


def _require_room(weights: int, n_rec: int) -> None:
    """See that there is memory for the weights: float64 when they are drawn, and once more when they are scaled.

    Raises:
        BpgenError: there is not.
    """
    advice = "Take a smaller --network.n_rec."
    require_bytes(16.0 * weights, f"{n_rec:,} neurons need memory for their weights", advice)


def _zeros(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape, dtype=dtype))
