"""Areas of a network: blocks of neurons, who projects to whom, who sees the input, who feeds the readout.

    areas: {V1: {size: 0.5, input: true}, PFC: {size: 0.5, readout: true, from: {V1: 0.2}}}

Areas are contiguous blocks of neurons, in the order in which they are named. With a(i) the area of neuron i, and
d(a, b) the density of the projection from area b to area a,
    (1) a synapse from j to i exists with probability d(a(i), a(j)) · density, on a ring only between near neurons
Activity crosses from area to area in one step, by W_rec: each area sees the others as they were one step ago.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from bpgen.errors import BpgenError, choice, require

_EXAMPLE = "{V1: {size: 0.5, input: true}, PFC: {size: 0.5, readout: true, from: {V1: 0.2}}}"


@dataclass(frozen=True)
class Area:
    """One area, as a user describes it.

    size: fraction of the neurons, or their number. input, readout: whether it sees the input, and the readout it.
    sources: d of equation (1) by the area that projects here.
    """

    size: float
    input: bool
    readout: bool
    sources: Mapping[str, float]

    @classmethod
    def of(cls, name: str, described: Mapping[str, Any], names: Sequence[str]) -> Area:
        """The area called `name` from its keys size, input, readout and from; `names` are those of all areas.

        Raises:
            BpgenError: an unknown key or area, or a value of another type or range.
        """
        where = f"network.areas.{name}"
        for key in described:
            choice(f"key in {where}", key, ("size", "input", "readout", "from"))
        size: Any = described.get("size")
        sources = described.get("from") or {}
        require(_is_number(size) and size > 0, f"{where}.size must be a fraction or a number of neurons, got {size!r}.")
        for role in ("input", "readout"):
            given = described.get(role, False)
            require(isinstance(given, bool), f"{where}.{role} must be true or false, got {given!r}.")
        require(isinstance(sources, Mapping), f"{where}.from must map areas to densities, e.g. {{V1: 0.2}}.")
        for source, density in sources.items():
            choice(f"area in {where}.from", source, names)
            require(
                _is_number(density) and 0 <= density <= 1,
                f"{where}.from.{source} must be a density in [0, 1], got {density!r}.",
            )
        return cls(size, described.get("input", False), described.get("readout", False), {name: 1.0, **sources})


@dataclass(frozen=True)
class Areas:
    """Areas of a network of N neurons.

    names: of the areas. of_neuron: int64 [N], an index into them.
    sees_input, feeds_readout: bool [N].
    density: d of equation (1) between all neurons [N,N], float64.
    """

    names: tuple[str, ...]
    of_neuron: Tensor
    sees_input: Tensor
    feeds_readout: Tensor
    density: Tensor

    @classmethod
    def of(cls, described: Mapping[str, Mapping[str, Any]] | None, N: int) -> Areas:
        """The areas that the option `network.areas` describes; without it one, "all", that does everything.

        Raises:
            BpgenError: what is wrong with the description.
        """
        areas = {"all": Area(1.0, True, True, {"all": 1.0})} if described is None else _read(described)
        names = tuple(areas)
        of_neuron = torch.arange(len(names)).repeat_interleave(torch.tensor(_sizes(areas, N)))
        density = torch.tensor(
            [[area.sources.get(source, 0.0) for source in names] for area in areas.values()], dtype=torch.float64
        )
        return cls(
            names,
            of_neuron,
            torch.tensor([area.input for area in areas.values()])[of_neuron],
            torch.tensor([area.readout for area in areas.values()])[of_neuron],
            density[of_neuron][:, of_neuron],
        )

    def sizes(self) -> list[int]:
        """Neurons of each area."""
        return self.of_neuron.bincount(minlength=len(self.names)).tolist()


def blocks(fractions: Sequence[float], N: int) -> list[int]:
    """Sizes of contiguous blocks of N neurons, as near to their fractions as whole neurons allow."""
    ends = [round(share * N) for share in accumulate(fractions)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _read(described: Any) -> dict[str, Area]:
    """All areas by name, of which at least one sees the input and one feeds the readout."""
    fits = isinstance(described, Mapping) and len(described) > 0
    if not fits or not all(isinstance(n, str) and isinstance(area, Mapping) for n, area in described.items()):
        raise BpgenError(f"network.areas must map names to descriptions, e.g. {_EXAMPLE}, got {described!r}.")
    areas = {name: Area.of(name, area, tuple(described)) for name, area in described.items()}
    for role, what in (("input", "sees the input"), ("readout", "feeds the readout")):
        some = any(getattr(area, role) for area in areas.values())
        require(some, f"no area of network.areas {what}: say `{role}: true` in at least one of them.")
    reached = {name for name, area in areas.items() if area.input}
    for _ in areas:
        reached |= {name for name, area in areas.items() if any(area.sources.get(source) for source in reached)}
    require(
        any(areas[name].readout for name in reached),
        "network.areas leads no input to the readout: say `from: {...}` in the areas between them, e.g. " + _EXAMPLE,
    )
    return areas


def _sizes(areas: Mapping[str, Area], N: int) -> list[int]:
    """Neurons of each area: their sizes are all fractions, or all numbers of neurons."""
    sizes = [area.size for area in areas.values()]
    total = sum(sizes)
    if total == N and all(float(size).is_integer() for size in sizes):
        return [int(size) for size in sizes]
    require(
        abs(total - 1) < 1e-6,
        "the sizes of network.areas must be fractions that add up to 1, or numbers of neurons that add up to "
        f"n_rec={N}, got {dict(zip(areas, sizes, strict=True))}: {total:g}.",
    )
    found = blocks(sizes, N)
    require(min(found) > 0, f"network.areas leaves an area without a neuron: of n_rec={N} they get {found}.")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
