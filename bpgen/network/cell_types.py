"""Cell types and Dale's law.

Types are contiguous blocks of neurons, in every area anew. Matrices are [post, pre], so that a column holds all that
one neuron sends; signs [N] are +1 for an excitatory and -1 for an inhibitory neuron, under Dale's law those of its
column:
    (1) Dale's start    |W_ij| sign_j; in every row that has both, inhibition times Σ_exc |W| / Σ_inh |W|, so that the
                        two cancel; then all times one factor that restores the spectral radius of W
    (2) projection      W_ij <- 0 where W_ij sign_j < 0, after every optimizer step: the nearest allowed weights
Source: (1) Song, Yang & Wang 2016, PLoS Comput Biol 12:e1004792, eq. 12 and the text after it: positive magnitudes
with signs, balanced, scaled to a spectral radius that is computed numerically. Deviations: magnitudes are those of the
chosen scheme and not gamma-distributed, the balance holds in every row and not only on average, and the radius is the
scheme's own and not 1.5. (2) they rectify W inside the forward pass instead; with the projection a weight is its own
parameter, and gradients and curvature need no further factor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bpgen.errors import require
from bpgen.network.areas import Areas, blocks
from bpgen.neurons import Neuron


def assign(cell_types: Mapping[str, float] | None, areas: Areas) -> tuple[tuple[str, ...], Tensor]:
    """Names of the cell types, and the type of each neuron as an int64 index into them [N].

    Args:
        cell_types: fraction of the neurons by name, in the order of the blocks; None is one type, "all".
        areas: each of which has all types.

    Raises:
        BpgenError: fractions that are not positive or do not add up to 1, or a type that would get no neuron.
    """
    if cell_types is None:
        return ("all",), torch.zeros_like(areas.of_neuron)
    require(
        len(cell_types) > 0
        and all(fraction > 0 for fraction in cell_types.values())
        and abs(sum(cell_types.values()) - 1) < 1e-6,
        "network.cell_types must map names to positive fractions that add up to 1, e.g. {E: 0.8, I: 0.2}, got "
        f"{dict(cell_types)}.",
    )
    types = []
    for name, N in zip(areas.names, areas.sizes(), strict=True):
        sizes = blocks(list(cell_types.values()), N)
        where = f"n_rec={N}" if len(areas.names) == 1 else f"{N} neurons in area {name}"
        require(
            min(sizes) > 0,
            f"network.cell_types {dict(cell_types)} leaves a type without a neuron: with {where} the types get "
            f"{sizes}.",
        )
        types.append(torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))
    return tuple(cell_types), torch.cat(types)


def signs_of(names: tuple[str, ...], cell_type: Tensor, neuron: Neuron) -> Tensor:
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


def with_signs(W: Tensor, signs: Tensor, mask: Tensor | None) -> Tensor:
    """Equation (1) for W [N,N], signs [N] and the mask [N,N] of the weights that act (None: all)."""
    mask, signs = torch.ones_like(W) if mask is None else mask.to(W), signs.to(W)
    signed = W.abs() * signs
    excitation, inhibition = ((signed * mask * (signs == s)).abs().sum(1, keepdim=True) for s in (1, -1))
    both = (excitation > 0) & (inhibition > 0)
    balance = torch.where(both, excitation / inhibition.where(both, torch.ones_like(inhibition)), 1.0)
    signed = torch.where(signs < 0, signed * balance, signed)
    wanted, found = (float(torch.linalg.eigvals(m * mask).abs().max()) for m in (W, signed))
    return signed * (wanted / found) if wanted > 0 and found > 0 else signed


def project_signs(W: Tensor, signs: Tensor) -> None:
    """Equation (2) in place, for W [N,N] and signs [N]."""
    W.masked_fill_(W * signs < 0, 0)
