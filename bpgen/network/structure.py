"""What a network is apart from its weights: neurons, sizes, who is connected to whom, and one step in time.

Everything here takes the weights as an argument, so that a time loop, a trajectory and a rule need no more than this.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bpgen.network.wiring import Wiring
from bpgen.neurons import Neuron

Params = Mapping[str, Tensor]


class Structure(nn.Module):
    """Neurons and their wiring, fixed for life; equations (1) and (2) of `bpgen.network.network`.

    Args:
        neuron: dynamics of the population, as `Neuron.populate` gives it.
        n_in: number of inputs I.
        n_out: number of outputs O.
        kappa: decay per step of the readout filter.
        wiring: which weights exist, and of which sign.
        W_fb: fixed feedback weights [K·N,O], or None.
        dtype: floating type of the masks.

    Attributes:
        area, cell_type: area and type of each neuron, int64 [N], indices into `area_names` and `cell_type_names`.
        rec_mask, in_mask, out_mask: 0-1 masks of W_rec [K·N,N], W_in [K·N,I] and W_out [O,N], or None where everything
            acts.
        signs: ±1 [N] under Dale's law, else None.
        site: where each neuron is on a torus (`bpgen.network.torus`), int64 [N], or None.
        silent_at_rest: whether the activity of the zero state is zero.
    """

    rec_mask: Tensor | None
    in_mask: Tensor | None
    out_mask: Tensor | None
    area: Tensor
    cell_type: Tensor
    signs: Tensor | None
    site: Tensor | None
    W_fb: Tensor | None

    def __init__(
        self,
        neuron: Neuron,
        n_in: int,
        n_out: int,
        kappa: float,
        wiring: Wiring,
        W_fb: Tensor | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self._modules["neuron"], self.kappa = neuron, float(kappa)
        self.n_in, self.n_rec, self.n_out = n_in, len(wiring.cell_type), n_out
        self.area_names, self.cell_type_names = wiring.areas.names, wiring.names
        self.silent_at_rest = not neuron.g(torch.zeros(neuron.n_states, self.n_rec)).any()
        self.register_buffer("area", wiring.areas.of_neuron, persistent=False)
        self.register_buffer("cell_type", wiring.cell_type, persistent=False)
        self.register_buffer("site", wiring.site, persistent=False)
        for name in ("rec_mask", "in_mask", "out_mask", "signs"):
            value: Tensor | None = getattr(wiring, name)
            self.register_buffer(name, None if value is None else value.to(dtype), persistent=False)
        self.register_buffer("W_fb", None if W_fb is None else W_fb.to(dtype))

    @property
    def neuron(self) -> Neuron:
        """Its neurons, without torch's search for a module of that name: a step of a stream asks ten times."""
        neuron: Any = self._modules["neuron"]
        return neuron

    def masks(self) -> dict[str, Tensor]:
        """0-1 masks of the weights that cannot act, by parameter name; such entries have no gradient."""
        masks = self._buffers
        named = (("W_rec", masks["rec_mask"]), ("W_in", masks["in_mask"]), ("W_out", masks["out_mask"]))
        return {name: mask for name, mask in named if mask is not None}

    def masked(self, tensors: Params) -> dict[str, Tensor]:
        """The same tensors, shaped like parameters of these names, with zeros where a weight cannot act."""
        masked = dict(tensors)
        for name, mask in self.masks().items():
            if name in masked:
                masked[name] = masked[name] * mask
        return masked

    def at(self, params: Params) -> Structure:
        """The structure with its neurons at the learned parameters that stand among `params`; itself without any."""
        known = self.neuron
        neuron = known.at(params)
        if neuron is known:
            return self
        here = copy.copy(self)
        here._modules = {**self._modules, "neuron": neuron}
        return here

    def start(self, params: Params, batch: int, initial_state: Tensor | None) -> Tensor:
        """s_0 [B,d,N]: the given one, else the learned one, else zero."""
        if initial_state is not None:
            return initial_state
        d, N = self.neuron.n_states, self.n_rec
        learned = params.get("initial_state")
        return params["W_rec"].new_zeros(batch, d, N) if learned is None else learned.expand(batch, d, N)

    def advance(
        self, params: Params, s: Tensor, h: Tensor, x: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of equations (1), (2) for whoever moves forward in time: I_t [B,K,N], s_t [B,d,N], h_t [B,N].

        Args:
            params: weights by name, masked (`masked`).
            s: s_{t-1} [B,d,N].
            h: h_{t-1} [B,N].
            x: x_t [B,I].
            noise: current noise [B,K·N], or None.
        """
        I = drive(params, x, noise) + h @ params["W_rec"].mT
        I = I.unflatten(-1, (self.neuron.n_currents, self.n_rec))
        neuron = self.neuron.at(params)
        s = neuron.f(s, I)
        return I, s, neuron.g(s)


def drive(params: Params, x: Tensor, noise: Tensor | None, out: Tensor | None = None) -> Tensor:
    """The part of the currents that does not depend on the state: W_in x_t + b_rec + noise, [T,B,K·N]."""
    W_in, bias = params["W_in"].mT, params.get("b_rec")
    if out is not None and bias is not None:
        torch.addmm(bias, x.flatten(0, 1), W_in, out=out.flatten(0, 1))
        return out if noise is None else out.add_(noise)
    currents = torch.matmul(x, W_in, out=out)
    for term in (bias, noise):
        if term is not None:
            currents = torch.add(currents, term, out=out)
    return currents
