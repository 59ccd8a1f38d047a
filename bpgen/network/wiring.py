"""Which weights exist: the blocks of a neuron's currents, areas, synapses, readout; and initial weights to fit.

With p_i the fraction of neurons from which neuron i is expected to have a synapse, q the fraction of neurons that
feed the readout, and u the fraction of inputs that a neuron sees:
    (1) W_rec = W_rec⁰ / √p_i on the synapses, zero elsewhere: the variance g²/(p_i N) keeps the summed variance of a
        neuron's inputs (Sussillo & Abbott 2009, Neuron 63:544)
    (2) W_out = W_out⁰ / √q from the neurons that feed the readout, zero elsewhere
    (3) W_in = W_in⁰ / √u from the inputs that a neuron sees, zero elsewhere
without the roots where `rescale` is false, so that fewer synapses are a weaker drive (Barretto-Bittar 2026).
A synapse carries all K currents or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.network.areas import Areas
from bpgen.network.cell_types import assign, signs_of, with_signs
from bpgen.network.torus import probability as probability_on_torus
from bpgen.network.torus import random_sites
from bpgen.neurons import Neuron


@dataclass(frozen=True)
class Connectivity:
    """The options of a `Network` that say who is connected to whom; see there."""

    autapses: bool = False
    cell_types: Mapping[str, float] | None = None
    dale: bool = False
    density: float = 1.0
    ring: int | None = None
    areas: Mapping[str, Mapping[str, Any]] | None = None
    torus: float | None = None
    readout_density: float = 1.0
    input_density: float = 1.0
    rescale: bool = True

    def __post_init__(self) -> None:
        require(0 < self.density <= 1, f"network.density must be in (0, 1] (1 is all-to-all), got {self.density}.")
        require(
            self.ring is None or self.ring >= 1, f"network.ring must be at least 1 place to each side, got {self.ring}."
        )
        require(
            self.torus is None or 0 < self.torus < math.inf,
            f"network.torus must be the width σ of the connectivity, a positive number, got {self.torus}.",
        )
        require(
            0 < self.readout_density <= 1,
            f"network.readout_density must be in (0, 1] (1 reads all neurons), got {self.readout_density}.",
        )
        require(
            0 < self.input_density <= 1,
            f"network.input_density must be in (0, 1] (1 sees all inputs), got {self.input_density}.",
        )

    def draw(self, neuron: Neuron, N: int, I: int, O: int, random: torch.Generator) -> Wiring:
        """The wiring of N such neurons with I inputs and O outputs.

        Raises:
            BpgenError: areas or types that do not fit, or Dale's law where it says nothing.
        """
        areas, K = Areas.of(self.areas, N), neuron.n_currents
        names, cell_type = assign(self.cell_types, areas)
        site = None if self.torus is None else random_sites(N, random)
        synapses, p = self._synapses(areas, site, random)
        rec_blocks = _blocks(neuron, "recurrent_currents", N, N)
        present = [synapses, None if self.autapses else ~torch.eye(N, dtype=torch.bool)]
        out_mask = self._readout(areas.feeds_readout, O, random)
        seen = self._inputs(areas.sees_input, I, random)
        return Wiring(
            areas=areas,
            names=names,
            cell_type=cell_type,
            signs=signs_of(names, cell_type, neuron) if self.dale else None,
            rec_mask=_product(rec_blocks, *(None if m is None else m.repeat(K, 1) for m in present)),
            in_mask=_product(_blocks(neuron, "input_currents", N, I), None if seen is None else seen.repeat(K, 1)),
            out_mask=out_mask,
            rec_blocks=rec_blocks,
            synapses=synapses,
            site=site,
            p=p,
            u=self.input_density,
            rescale=self.rescale,
        )

    def _inputs(self, sees: Tensor, I: int, random: torch.Generator) -> Tensor | None:
        """Which inputs the neurons that see any, bool [N], see: bool [N,I], None where all."""
        if self.input_density == 1:
            return None if sees.all() else sees.unsqueeze(1).expand(-1, I)
        drawn = torch.rand(len(sees), I, generator=random, dtype=torch.float64) < self.input_density
        return drawn & sees.unsqueeze(1)

    def _readout(self, feeds: Tensor, O: int, random: torch.Generator) -> Tensor | None:
        """Which of the neurons that feed the readout, bool [N], an output reads: bool [O,N], None where all."""
        if self.readout_density == 1:
            return None if feeds.all() else feeds.expand(O, -1)
        read = max(1, round(self.readout_density * int(feeds.sum())))
        order = torch.where(feeds, torch.rand(O, len(feeds), generator=random, dtype=torch.float64), 2.0)
        return order.argsort(-1).argsort(-1) < read

    def _synapses(self, areas: Areas, site: Tensor | None, random: torch.Generator) -> tuple[Tensor | None, Tensor]:
        """Which synapses exist, bool [N,N] (None where all do), and p of equation (1) [N,1], float64."""
        N, probability = len(areas.of_neuron), areas.density
        if self.ring is not None:
            apart = (torch.arange(N).unsqueeze(1) - torch.arange(N)).abs()
            probability = probability * (torch.minimum(apart, N - apart) <= self.ring)
        if site is not None and self.torus is not None:
            probability = probability * probability_on_torus(site, self.torus)
        p = self.density * probability.mean(1, keepdim=True)
        if self.density == 1 and bool((probability == 1).all()):
            return None, p
        exists = torch.rand(N, N, generator=random, dtype=torch.float64) < self.density * probability
        return exists, p


@dataclass(frozen=True)
class Wiring:
    """Structure of a network, fixed for life.

    areas: areas of the neurons.
    names: of the cell types. cell_type: int64 [N], an index into them. signs: ±1 [N], or None without Dale's law.
    rec_mask [K·N,N], in_mask [K·N,I], out_mask [O,N]: bool, which weights can act; None where all can.
    rec_blocks: rec_mask, but for the blocks of the currents alone.
    synapses: bool [N,N], or None where all exist. p: as in equation (1), [N,1].
    site: int64 [N], where the neurons are on a torus, or None.
    u: as in equation (3). rescale: whether (1) to (3) have their roots.
    """

    areas: Areas
    names: tuple[str, ...]
    cell_type: Tensor
    signs: Tensor | None
    rec_mask: Tensor | None
    in_mask: Tensor | None
    out_mask: Tensor | None
    rec_blocks: Tensor | None
    synapses: Tensor | None
    p: Tensor
    site: Tensor | None = None
    u: float = 1.0
    rescale: bool = True

    def fit(self, W_rec: Tensor, W_in: Tensor, W_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of a scheme, made to fit: missing ones are zero; equations (1) to (3) and Dale's start."""
        if self.rec_blocks is not None:
            W_rec = W_rec * self.rec_blocks
        if self.synapses is not None:
            K = len(W_rec) // len(self.synapses)
            expected = [p if self.rescale and p > 0 else 1.0 for p in self.p.flatten().tolist()]
            root = torch.tensor([[p**0.5] for p in expected], dtype=W_rec.dtype)
            W_rec = W_rec * self.synapses.repeat(K, 1) / root.repeat(K, 1)
        if self.signs is not None:
            W_rec = with_signs(W_rec, self.signs, self.rec_mask)
        if self.in_mask is not None:
            W_in = W_in * self.in_mask / (self.u**0.5 if self.rescale else 1.0)
        if self.out_mask is not None:
            W_out = W_out * self.out_mask / (float(self.out_mask.double().mean()) ** 0.5 if self.rescale else 1.0)
        return W_rec, W_in, W_out

    def feedback(self, rows: int, O: int, scale: float, random: torch.Generator) -> Tensor:
        """Fixed weights from O outputs to the currents [rows,O], uniform in ±scale, where activity may arrive."""
        W_fb = scale * (2 * torch.rand(rows, O, generator=random, dtype=torch.float64) - 1)
        return W_fb if self.rec_blocks is None else W_fb * self.rec_blocks[:, :1]


def _product(*masks: Tensor | None) -> Tensor | None:
    """The product of those masks that there are; None where there is none."""
    given = [mask for mask in masks if mask is not None]
    return torch.stack(given).all(0) if given else None


def _blocks(neuron: Neuron, which: str, rows: int, columns: int) -> Tensor | None:
    """Bool mask [K·rows,columns] of the blocks of those of the neuron's currents that `which` names; None is all.

    Raises:
        BpgenError: the neuron names a current it does not have.
    """
    currents, K = getattr(neuron, which), neuron.n_currents
    if currents is None:
        return None
    require(
        all(0 <= k < K for k in currents),
        f"{type(neuron).__name__}.{which} must name currents from 0 to {K - 1}, got {tuple(currents)}.",
    )
    mask = torch.zeros(K, rows, columns, dtype=torch.bool)
    mask[list(currents)] = True
    return mask.flatten(0, 1)
