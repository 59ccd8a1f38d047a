"""Curvature of any module with a scalar loss, by double backward; networks of this package need none of it.

loss = lambda m: F.cross_entropy(m(x), y)
module_sharpness(model, loss, top=3),   density(ModuleProducts(model, loss)),   trace(ModuleProducts(model, loss))
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from bpgen.curvature.autograd import DoubleBackward
from bpgen.curvature.block import Block, FreeEntries
from bpgen.curvature.leading_eigenvalues import Definition, Search, SharpnessResult
from bpgen.errors import BpgenError, require
from bpgen.streams import generator

Loss = Callable[[nn.Module], Tensor]


class ModuleProducts:
    """H v for any module and any scalar of it that autograd can follow twice.

    The loss is taken once, at copies of the weights and buffers in their places, so that it may reach the module by
    its argument or by any other name. The module's parameters, .grad, mode, buffers and plain attributes stay as they
    are, and later training does not change the operator. What the loss draws at random (dropout) is drawn once, and
    the global random state is put back. Fused kernels whose second derivative is missing (attention) or wrong (weight
    norm) are replaced by what they compute. A Hessian is symmetric: two products tell, and warn, if this one is not.

    Args:
        module: the model, in the mode in which it is to be measured.
        loss: the scalar loss of a module, for instance lambda m: F.cross_entropy(m(x), y).
        block: "all" parameters that require a gradient, or the names of some.

    Attributes:
        size: P, the number of entries.
        precision: machine epsilon of the parameters' dtype.

    Raises:
        BpgenError: an unknown name, a loss that is no scalar, or one that no weight of the block reaches by a path
            that autograd follows twice.
    """

    by = "autograd"

    def __init__(self, module: nn.Module, loss: Loss, block: Block = "all") -> None:
        params = dict(module.named_parameters())
        _check(module, params, loss)
        devices = sorted({p.device.index for p in params.values() if p.device.type == "cuda"})
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=devices):
            self._free = FreeEntries(module, params, block)
            self._block = {name: params[name].detach().clone().requires_grad_() for name in self._free.names}
            value = _value(module, loss, self._block)
            with _followed_twice():
                self._operator = DoubleBackward(value, self._block)
                if not self._operator.is_whole:
                    raise NotImplementedError("a function of it is marked @once_differentiable.")
        unreached = self._operator.unreached
        require(
            len(unreached) < len(self._block),
            f"the loss reaches no weight of the block ({', '.join(unreached)}): is it of another model, of a copy, or "
            "of a detached part? Compute it from the module it is handed: lambda m: F.cross_entropy(m(x), y).",
        )
        self.size = self._free.size
        self.precision = max(torch.finfo(p.dtype).eps for p in self._block.values())
        self._check_symmetry()

    def __call__(self, v: Tensor) -> Tensor:
        """H v, float64, of v [P] or of V vectors [V,P]."""
        with torch.inference_mode(False), torch.enable_grad():
            rows = v.reshape(-1, self.size)
            with _followed_twice():
                got = self._free.vectors(self._operator(self._free.directions(rows, self._block)))
            return got.to(v.device).double().view(v.shape)

    def _check_symmetry(self) -> None:
        """Warn where uᵀ H v is not vᵀ H u, as after an operation whose second derivative is wrong."""
        u, v = torch.randn(2, self.size, generator=generator(0, "symmetry"), dtype=torch.float64)
        Hu, Hv = self(u), self(v)
        off, typical = abs(u @ Hv - v @ Hu), u.norm() * torch.maximum(Hu.norm(), Hv.norm()) / self.size**0.5
        if off > max(1e-3, 1e4 * self.precision) * typical:
            warnings.warn(
                f"uᵀHv and vᵀHu of this module differ by {off / typical:.1g} of their size: an operation in it has a "
                "wrong second derivative (try torch.autograd.gradgradcheck), or the Hessian is all rounding.",
                stacklevel=4,
            )


def module_sharpness(
    module: nn.Module,
    loss: Loss,
    block: Block = "all",
    top: int = 1,
    tol: float = 1e-4,
    seed: int = 0,
    *,
    definition: Definition = "largest",
    max_products: int = 300,
) -> SharpnessResult:
    """The extreme eigenvalues of any module's loss Hessian, by double backward.

    Args:
        module: the model, in the mode in which it is to be measured; it is left as found.
        loss: its scalar loss, regularisers included: lambda m: F.cross_entropy(m(x), y).
        block: "all" parameters that require a gradient, or the names of some.
        top, tol, seed, definition, max_products: as for `sharpness`.

    Returns:
        As of `sharpness`; how many samples the loss is of, and whether it is regularised, is not known (0, False).

    Raises:
        BpgenError: as `ModuleProducts`, or an option out of its range.
    """
    began, search = time.perf_counter(), Search(top, tol, seed, definition, max_products)
    products = ModuleProducts(module, loss, block)
    return SharpnessResult.of(
        search.eigenpairs(products),
        search,
        block,
        samples=0,
        regularised=False,
        seconds=time.perf_counter() - began,
        products_by=products.by,
        surrogate=False,
    )


class _Scalar(nn.Module):
    """The loss as a module of its own, so that `functional_call` can put other weights in their places."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self) -> Tensor:
        return self.loss(self.module)


def _value(module: nn.Module, loss: Loss, weights: dict[str, Tensor]) -> Tensor:
    """The loss at other weights, 0-d, with its graph.

    Raises:
        BpgenError: it is not one number that depends on weights by a path that autograd follows.
    """
    swapped = {**{name: b.detach().clone() for name, b in module.named_buffers()}, **weights}
    with _left_as_found(module), sdpa_kernel(SDPBackend.MATH), _WrittenOut():
        value = torch.func.functional_call(
            _Scalar(module, loss), {f"module.{name}": tensor for name, tensor in swapped.items()}, ()
        )
    require(isinstance(value, Tensor), f"the loss must return a tensor of one number, got {type(value).__name__}.")
    require(
        value.numel() == 1,
        f"the loss must be one number, got a tensor {list(value.shape)}: take its mean (reduction='mean').",
    )
    require(
        value.requires_grad,
        "the loss depends on no weight that autograd knows: is it detached, or computed under torch.no_grad?",
    )
    return value.reshape(())


def _check(module: nn.Module, params: dict[str, nn.Parameter], loss: Loss) -> None:
    """See that module and loss are of a kind that can be measured.

    Raises:
        BpgenError: with what to do.
    """
    lazy = [name for name, p in params.items() if nn.parameter.is_lazy(p)]
    require(not lazy, f"{', '.join(lazy)}: not made before the first run (a lazy module). Run it once on a batch.")
    scripted = any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())
    require(not scripted, "a scripted module cannot be given other weights: measure the module it was made from.")
    try:
        inspect.signature(loss).bind(module)
    except TypeError:
        raise BpgenError(
            "the loss must be a function of the module alone, for instance lambda m: F.cross_entropy(m(x), y)."
        ) from None
    except ValueError:  # a function without a known signature
        pass


class _WrittenOut(TorchFunctionMode):
    """Weight norm as torch defines it: the second derivative of the fused one takes ‖v‖ for a constant (torch 2.13)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            v, g, dim = args
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))


@contextmanager
def _left_as_found(module: nn.Module) -> Iterator[None]:
    """Plain attributes of all its parts, as a stateful cell or an old `weight_norm` writes them, are put back."""
    found = [(part, dict(part.__dict__)) for part in module.modules()]
    for part, attributes in found:
        for name, value in attributes.items():
            if isinstance(value, Tensor):
                part.__dict__[name] = value.detach().clone()  # what is written in place goes here
    try:
        yield
    finally:
        for part, attributes in found:
            part.__dict__.clear()
            part.__dict__.update(attributes)


@contextmanager
def _followed_twice() -> Iterator[None]:
    """Say what it means where autograd has no second derivative of an operation."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BpgenError(
            f"the loss cannot be differentiated twice: {reason} Replace that operation; sparse embeddings need "
            "sparse=False."
        ) from error
