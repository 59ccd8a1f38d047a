"""Curvature of the true loss. It never sees a rule."""

from bpgen.curvature.density import Density, density
from bpgen.curvature.lanczos import Eigenpairs, lanczos
from bpgen.curvature.module import ModuleProducts, module_sharpness
from bpgen.curvature.participation import participation
from bpgen.curvature.products import HessianProducts, Products
from bpgen.curvature.sharpness import SharpnessResult, measure, sharpness
from bpgen.curvature.trace import Trace, trace

__all__ = [
    "Density",
    "Eigenpairs",
    "HessianProducts",
    "ModuleProducts",
    "Products",
    "SharpnessResult",
    "Trace",
    "density",
    "lanczos",
    "measure",
    "module_sharpness",
    "participation",
    "sharpness",
    "trace",
]
