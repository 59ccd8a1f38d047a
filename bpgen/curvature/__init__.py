"""Curvature of the true loss. It never sees a rule."""

from bpgen.curvature.block import trained
from bpgen.curvature.eigenpairs import Eigenpairs, lanczos
from bpgen.curvature.leading_eigenvalues import Search, SharpnessResult, eigenvalues, sharpness
from bpgen.curvature.module import ModuleProducts, module_sharpness
from bpgen.curvature.neuron_shares import Participation, participation
from bpgen.curvature.products import HessianProducts, Products
from bpgen.curvature.scaled import Scaled
from bpgen.curvature.spectral_density import Density, density
from bpgen.curvature.trace_estimate import Trace, trace

__all__ = [
    "Density",
    "Eigenpairs",
    "HessianProducts",
    "ModuleProducts",
    "Participation",
    "Products",
    "Scaled",
    "Search",
    "SharpnessResult",
    "Trace",
    "density",
    "eigenvalues",
    "lanczos",
    "module_sharpness",
    "participation",
    "sharpness",
    "trace",
    "trained",
]
