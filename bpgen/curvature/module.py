"""Curvature of any module with a scalar loss, by double backward; networks of this package need none of it.

loss = lambda m: F.cross_entropy(m(x), y)
module_sharpness(model, loss, top=3),   density(ModuleProducts(model, loss)),   trace(ModuleProducts(model, loss))
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bpgen.curvature.autograd import DoubleBackward
from bpgen.curvature.block import Block, FreeEntries, label
from bpgen.curvature.sharpness import Definition, SharpnessResult, result_of, spectrum_end


class ModuleProducts:
    """H v for any module and any scalar of it that autograd can follow twice.

    The module is copied: its parameters, .grad, mode and buffers stay as they are, and later training does not change
    the operator. What the loss draws at random (dropout) is drawn once, and the global random state is put back.

    Args:
        module: the model, in the mode in which it is to be measured.
        loss: the scalar loss of a module, for instance lambda m: F.cross_entropy(m(x), y).
        block: "all" parameters that require a gradient, or the names of some.

    Attributes:
        size: P, the number of entries.
        precision: machine epsilon of the parameters' dtype.

    Raises:
        BpgenError: an unknown name.
    """

    by = "autograd"

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module], Tensor], block: Block = "all") -> None:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            module = copy.deepcopy(module)
            params = {name: p for name, p in module.named_parameters() if p.requires_grad}
            self._free = FreeEntries(nn.Module(), params, block)
            self._block = {name: params[name] for name in self._free.names}
            self._operator = DoubleBackward(loss(module), self._block)
        self.size = self._free.size
        self.precision = max(torch.finfo(p.dtype).eps for p in self._block.values())

    def __call__(self, v: Tensor) -> Tensor:
        """H v, float64, of v [P] or of several [V,P]."""
        with torch.inference_mode(False), torch.enable_grad():
            rows = v.reshape(-1, self.size)
            got = self._free.vectors(self._operator(self._free.directions(rows, self._block)))
            return got.to(v.device).double().view(v.shape)


def module_sharpness(
    module: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    block: Block = "all",
    top: int = 1,
    tol: float = 1e-4,
    seed: int = 0,
    *,
    definition: Definition = "largest",
    start: Tensor | None = None,
    max_products: int = 300,
    samples: int = 0,
) -> SharpnessResult:
    """The extreme eigenvalues of any module's loss Hessian, by double backward.

    Args:
        module: the model, in the mode in which it is to be measured; it is left as found.
        loss: its scalar loss, regularisers included: lambda m: F.cross_entropy(m(x), y).
        block: "all" parameters that require a gradient, or the names of some.
        samples: how many the loss is taken over, for the record only.
        top, tol, seed, definition, start, max_products: as for `sharpness`.

    Raises:
        BpgenError: an option out of its range.
    """
    began = time.perf_counter()
    products = ModuleProducts(module, loss, block)
    found = spectrum_end(products, top, tol, seed, definition, start, max_products)
    return result_of(
        found,
        began,
        block=label(block),
        samples=samples,
        definition=definition,
        regularised=False,
        backend="lanczos",
        tol=tol,
        products_by=products.by,
        surrogate=False,
    )
