"""Curvature of any module with a scalar loss, by double backward; networks of this package need none of it.

loss = lambda m: F.cross_entropy(m(x), y)
module_sharpness(model, loss, top=3),   density(ModuleProducts(model, loss)),   trace(ModuleProducts(model, loss))
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bpgen.curvature.autograd import DoubleBackward
from bpgen.curvature.block import Block, FreeEntries
from bpgen.curvature.leading_eigenvalues import Definition, Search, SharpnessResult
from bpgen.errors import BpgenError, require

Loss = Callable[[nn.Module], Tensor]


class ModuleProducts:
    """H v for any module and any scalar of it that autograd can follow twice.

    The loss is taken once, at copies of the weights and buffers in their places, so that it may reach the module by
    its argument or by any other name. The module's parameters, .grad, mode, buffers and plain attributes stay as they
    are, and later training does not change the operator. What the loss draws at random (dropout) is drawn once, and
    the global random state is put back. Attention is computed by its mathematical kernel, the only one with a second
    derivative.

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
        unreached = self._operator.unreached
        require(
            len(unreached) < len(self._block),
            f"the loss reaches no weight of the block ({', '.join(unreached)}): is it of another model, of a copy, or "
            "of a detached part? Compute it from the module it is handed: lambda m: F.cross_entropy(m(x), y).",
        )
        self.size = self._free.size
        self.precision = max(torch.finfo(p.dtype).eps for p in self._block.values())

    def __call__(self, v: Tensor) -> Tensor:
        """H v, float64, of v [P] or of V vectors [V,P]."""
        with torch.inference_mode(False), torch.enable_grad():
            rows = v.reshape(-1, self.size)
            with _followed_twice():
                got = self._free.vectors(self._operator(self._free.directions(rows, self._block)))
            return got.to(v.device).double().view(v.shape)


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
        for part in self.module.modules():
            if isinstance(part, nn.RNNBase):  # keeps its weights in a list beside
                part.__dict__["_flat_weights"] = [getattr(part, name) for name in part._flat_weights_names]
        return self.loss(self.module)


def _value(module: nn.Module, loss: Loss, weights: dict[str, Tensor]) -> Tensor:
    """The loss at other weights, 0-d, with its graph.

    Raises:
        BpgenError: it is not one number that depends on weights by a path that autograd follows.
    """
    swapped = {**{name: b.detach().clone() for name, b in module.named_buffers()}, **weights}
    with _left_as_found(module), sdpa_kernel(SDPBackend.MATH):
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
