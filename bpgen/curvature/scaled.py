"""A symmetric operator in other coordinates, each weight in units of its own."""

from __future__ import annotations

from torch import Tensor

from bpgen.curvature.products import Products, products_of
from bpgen.errors import require


class Scaled:
    """S H S for a symmetric operator H [P,P] and S = diag(scale): of a Hessian, that in the coordinates S⁻¹ θ.

    Args:
        operator: H.
        scale: [P] float64, positive.

    Attributes:
        size, precision: as of `Products`.

    Raises:
        BpgenError: a scale of another size, or one that is not positive and finite.
    """

    batched = True

    def __init__(self, operator: Products, scale: Tensor) -> None:
        require(
            scale.shape == (operator.size,), f"scale must have {operator.size} entries, got shape {list(scale.shape)}."
        )
        require(bool(((scale > 0) & scale.isfinite()).all()), "scale must hold positive, finite numbers.")
        self.size, self.precision = operator.size, operator.precision
        self._operator, self._scale = operator, scale

    def __call__(self, v: Tensor) -> Tensor:
        """S H S v, float64, of v [P], or of V vectors v [V,P] at once."""
        return self._scale * products_of(self._operator, (self._scale * v).reshape(-1, self.size)).view(v.shape)
