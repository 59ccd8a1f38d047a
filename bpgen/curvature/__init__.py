"""Curvature of the true loss. It never sees a rule."""

from bpgen.curvature.lanczos import Eigenpairs, lanczos
from bpgen.curvature.products import HessianProducts, Products
from bpgen.curvature.sharpness import SharpnessResult, measure, sharpness

__all__ = ["Eigenpairs", "HessianProducts", "Products", "SharpnessResult", "lanczos", "measure", "sharpness"]
