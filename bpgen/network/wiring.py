"""Who is connected to whom, and with which sign: cell types, existing synapses, Dale's law.

Cell types are contiguous blocks of neurons. Matrices are [post, pre], so that a column holds all that one neuron sends:
    synapses [N,N]   1 where a synapse exists; one between two neurons carries all of its K currents or none
    signs    [N]     +1 for an excitatory, -1 for an inhibitory neuron: under Dale's law the sign of its column
    (1) sparse start    W = W⁰ / √p on the synapses, zero elsewhere, p = density · (fraction of pairs in the ring): the
                        variance g²/(pN) keeps the summed variance of a neuron's inputs
    (2) Dale's start    |W_ij| sign_j; in every row that has both, inhibition times Σ_exc |W| / Σ_inh |W|, so that the
                        two cancel; then all times one factor that restores the spectral radius of the W of (1)
    (3) projection      W_ij <- 0 where W_ij sign_j < 0, after every optimizer step: the nearest allowed weights
Sources: (1) Sussillo & Abbott 2009, Neuron 63:544. (2) Song, Yang & Wang 2016, PLoS Comput Biol 12:e1004792, eq. 12 and
the text after it: positive magnitudes with signs, balanced, scaled to a spectral radius that is computed numerically.
Deviations: magnitudes are those of the chosen scheme and not gamma-distributed, the balance holds in every row and not
only on average, and the radius is the scheme's own and not 1.5. (3) they rectify W inside the forward pass instead;
with the projection a weight is its own parameter, and gradients and curvature need no further factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.neurons import Neuron


@dataclass(frozen=True)
class Wiring:
    """Structure of a network, fixed for life.

    names: of the cell types. cell_type: int64 [N], an index into them. signs: ±1 [N], or None without Dale's law.
    rec_mask [K·N,N], in_mask [K·N,I]: 0 where a weight cannot act; None where all can.
    rec_blocks: rec_mask, but for the blocks alone.
    synapses: [N,N], or None where all exist. p: fraction of them that is expected to exist.
    """

    names: tuple[str, ...]
    cell_type: Tensor
    signs: Tensor | None
    rec_mask: Tensor | None
    in_mask: Tensor | None
    rec_blocks: Tensor | None
    synapses: Tensor | None
    p: float

    @classmethod
    def draw(
        cls,
        neuron: Neuron,
        N: int,
        I: int,
        *,
        autapses: bool,
        cell_types: Mapping[str, float] | None,
        dale: bool,
        density: float,
        ring: int | None,
        random: torch.Generator,
    ) -> Wiring:
        """The wiring that a network's options ask for; see `Network`.

        Raises:
            BpgenError: an option outside its range, or Dale's law where it says nothing.
        """
        names, cell_type = _assign(cell_types, N)
        synapses, p = _draw_synapses(N, density, ring, random)
        rec_blocks, in_mask = _blocks(neuron, "recurrent_currents", N, N), _blocks(neuron, "input_currents", N, I)
        rec_mask = rec_blocks
        for present in (synapses, None if autapses else 1 - torch.eye(N)):
            if present is not None:
                present = present.repeat(neuron.n_currents, 1)
                rec_mask = present if rec_mask is None else present * rec_mask
        signs = _signs(names, cell_type, neuron) if dale else None
        return cls(names, cell_type, signs, rec_mask, in_mask, rec_blocks, synapses, p)

    def shape(self, W_rec: Tensor, W_in: Tensor) -> tuple[Tensor, Tensor]:
        """W_rec and W_in of a scheme, made to fit: missing blocks are zero; equations (1) and (2)."""
        if self.rec_blocks is not None:
            W_rec = W_rec * self.rec_blocks
        if self.in_mask is not None:
            W_in = W_in * self.in_mask
        if self.synapses is not None:
            W_rec = W_rec * self.synapses.repeat(len(W_rec) // len(self.synapses), 1) / self.p**0.5
        if self.signs is not None:
            W_rec = _dale_start(W_rec, self.signs, self.rec_mask)
        return W_rec, W_in

    def feedback(self, rows: int, O: int, scale: float, random: torch.Generator) -> Tensor:
        """Fixed weights from O outputs to the currents [rows,O], uniform in ±scale, where activity may arrive."""
        W_fb = scale * (2 * torch.rand(rows, O, generator=random, dtype=torch.float64) - 1)
        return W_fb if self.rec_blocks is None else W_fb * self.rec_blocks[:, :1]


def project_signs(W: Tensor, signs: Tensor) -> None:
    """Equation (3) in place, for W [N,N] and signs [N]."""
    W.masked_fill_(W * signs < 0, 0)


def _assign(cell_types: Mapping[str, float] | None, N: int) -> tuple[tuple[str, ...], Tensor]:
    """Names of the cell types, and the type of each neuron as an int64 index into them [N].

    Args:
        cell_types: fraction of the neurons by name, in the order of the blocks; None is one type, "all".
        N: number of neurons.

    Raises:
        BpgenError: fractions that are not positive or do not add up to 1, or a type that would get no neuron.
    """
    if cell_types is None:
        return ("all",), torch.zeros(N, dtype=torch.int64)
    require(
        len(cell_types) > 0
        and all(fraction > 0 for fraction in cell_types.values())
        and abs(sum(cell_types.values()) - 1) < 1e-6,
        "network.cell_types must map names to positive fractions that add up to 1, e.g. {E: 0.8, I: 0.2}, got "
        f"{dict(cell_types)}.",
    )
    ends = [round(share * N) for share in accumulate(cell_types.values())]
    sizes = torch.tensor([end - start for start, end in zip([0, *ends], ends, strict=False)])
    require(
        bool((sizes > 0).all()),
        f"network.cell_types {dict(cell_types)} leaves a type without a neuron: with n_rec={N} the types get "
        f"{sizes.tolist()}.",
    )
    return tuple(cell_types), torch.arange(len(sizes)).repeat_interleave(sizes)


def _signs(names: tuple[str, ...], cell_type: Tensor, neuron: Neuron) -> Tensor:
    """Sign of what each neuron sends, [N] of ±1: a type is named E... (excitatory) or I... (inhibitory).

    Raises:
        BpgenError: a type whose name says neither, or a neuron with several currents, where a sign says nothing.
    """
    require(
        neuron.n_currents == 1,
        f"network.dale is defined for neurons with one input current; {type(neuron).__name__} has {neuron.n_currents}, "
        "and a weight onto a gate neither excites nor inhibits.",
    )
    for name in names:
        require(
            name[:1] in ("E", "I"),
            "network.dale needs network.cell_types, e.g. {E: 0.8, I: 0.2}, whose names begin with E (excitatory) or I "
            f"(inhibitory, e.g. I_pv); {name!r} begins with neither.",
        )
    return torch.tensor([1.0 if name[0] == "E" else -1.0 for name in names])[cell_type]


def _draw_synapses(N: int, density: float, ring: int | None, random: torch.Generator) -> tuple[Tensor | None, float]:
    """Which synapses exist, [N,N] of 0 and 1 (None where all do), and the fraction that is expected to."""
    require(0 < density <= 1, f"network.density must be in (0, 1] (1 is all-to-all), got {density}.")
    require(ring is None or ring >= 1, f"network.ring must be at least 1 place to each side, got {ring}.")
    if density == 1 and ring is None:
        return None, 1.0
    exists = torch.rand(N, N, generator=random, dtype=torch.float64) < density
    if ring is None:
        return exists.float(), density
    apart = (torch.arange(N).unsqueeze(1) - torch.arange(N)).abs()
    near = torch.minimum(apart, N - apart) <= ring
    return (exists & near).float(), density * float(near.double().mean())


def _dale_start(W: Tensor, signs: Tensor, mask: Tensor | None) -> Tensor:
    """Equation (2) for W [N,N], signs [N] and the mask [N,N] of the weights that act (None: all)."""
    mask, signs = torch.ones_like(W) if mask is None else mask.to(W), signs.to(W)
    signed = W.abs() * signs
    excitation, inhibition = ((signed * mask * (signs == s)).abs().sum(1, keepdim=True) for s in (1, -1))
    both = (excitation > 0) & (inhibition > 0)
    balance = torch.where(both, excitation / inhibition.where(both, torch.ones_like(inhibition)), 1.0)
    signed = torch.where(signs < 0, signed * balance, signed)
    wanted, found = (float(torch.linalg.eigvals(m * mask).abs().max()) for m in (W, signed))
    return signed * (wanted / found) if wanted > 0 and found > 0 else signed


def _blocks(neuron: Neuron, which: str, rows: int, columns: int) -> Tensor | None:
    """0-1 mask [K·rows,columns] of the blocks of those of the neuron's currents that `which` names; None is all.

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
    mask = torch.zeros(K, rows, columns)
    mask[list(currents)] = 1
    return mask.flatten(0, 1)
