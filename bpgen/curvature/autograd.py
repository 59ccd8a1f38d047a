"""Hessian-vector products by double backward: for what the R-operator does not know, and its oracle.

    H v = ∂/∂θ <g(θ), v>
is a second backward pass through the gradient's own graph, which is kept between products. It knows no neuron, no loss
and no network, only a scalar that autograd can follow twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bpgen.curvature.roperator import Part
from bpgen.problem import Problem


class DoubleBackward:
    """H θ' of a scalar that is a function of some tensors.

    Args:
        value: the scalar, with a graph behind it.
        weights: the tensors by name, which require gradients.

    Attributes:
        unreached: names of those that the scalar does not depend on.
    """

    def __init__(self, value: Tensor, weights: Mapping[str, Tensor]) -> None:
        self._names, self._weights = tuple(weights), tuple(weights.values())
        found = torch.autograd.grad(value, self._weights, create_graph=True, allow_unused=True)
        self.unreached = tuple(name for name, g in zip(self._names, found, strict=True) if g is None)
        self._gradient = [
            torch.zeros_like(w) if g is None else _dense(g) for g, w in zip(found, self._weights, strict=True)
        ]

    @property
    def is_whole(self) -> bool:
        """Whether autograd follows all of the gradient: through `once_differentiable` it passes in silence, as if 0."""
        seen = {g.grad_fn for g in self._gradient if g.grad_fn is not None}
        ahead = list(seen)
        while ahead:
            node = ahead.pop()
            if node.name() == "torch::autograd::Error":
                return False
            new = {other for other, _ in node.next_functions if other is not None} - seen
            seen |= new
            ahead += new
        return True

    def __call__(self, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """H θ' by name, each [V,...], of V directions θ' [V,...] of all those tensors."""
        pairs = [(g, direction[name]) for name, g in zip(self._names, self._gradient, strict=True) if g.requires_grad]
        if not pairs:
            return {name: torch.zeros_like(d) for name, d in direction.items()}
        gradient, along = zip(*pairs, strict=True)
        rows = [
            map(_dense, torch.autograd.grad(gradient, self._weights, row, retain_graph=True, materialize_grads=True))
            for row in zip(*along, strict=True)
        ]
        return {name: torch.stack(columns) for name, columns in zip(self._names, zip(*rows, strict=True), strict=True)}


def _dense(tensor: Tensor) -> Tensor:
    """As it is, but for the gradient of a sparse embedding."""
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


class GaussNewton:
    """Jᵀ (∂²ℓ/∂y²) J θ' of a loss ℓ(y) of outputs y that are a function of some tensors.

    Args:
        outputs: y, with a graph behind it.
        loss: ℓ, twice differentiable.
        weights: the tensors by name.
    """

    def __init__(self, outputs: Tensor, loss: Callable[[Tensor], Tensor], weights: Mapping[str, Tensor]) -> None:
        self._names, self._weights, self._y = tuple(weights), tuple(weights.values()), outputs
        self._u = torch.zeros_like(outputs, requires_grad=True)
        self._pulled = torch.autograd.grad(outputs, self._weights, self._u, create_graph=True, materialize_grads=True)
        self._free = outputs.detach().requires_grad_()
        self._error = torch.autograd.grad(loss(self._free), self._free, create_graph=True)[0]

    def __call__(self, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The product by name, each [V,...], of V directions [V,...]."""
        rows: list[Sequence[Tensor]] = []
        keep = {"retain_graph": True, "materialize_grads": True}
        for row in zip(*(direction[name] for name in self._names), strict=True):
            dy = torch.autograd.grad(self._pulled, self._u, row, **keep)[0]
            de = torch.autograd.grad(self._error, self._free, dy, **keep)[0]
            rows.append(torch.autograd.grad(self._y, self._weights, de, **keep))
        return {name: torch.stack(columns) for name, columns in zip(self._names, zip(*rows, strict=True), strict=True)}


class NetworkByAutograd:
    """The same interface as `ROperator`, by double backward through a network of any kind.

    Its Hessian is that of the problem's whole loss; a regulariser of the weights belongs to the residual part.

    Args:
        problem: whose Hessian.
        names: the parameters it is taken by.

    Attributes:
        whole_loss: products with the whole Hessian.
    """

    def __init__(self, problem: Problem, names: Sequence[str]) -> None:
        loss, target = problem.loss, problem.target
        leaves = {name: w.detach().clone() for name, w in problem.params.items()}
        block = {name: leaves[name].requires_grad_() for name in names}
        run = problem.run(leaves, in_place=False)
        y, activity, self._block = run.outputs, loss.cost, block
        self._outputs = y if activity is None else torch.cat([y.flatten(), run.h.flatten()])  # what has a cost

        def data(outputs: Tensor) -> Tensor:
            if activity is None:
                return loss.data(outputs, target)
            of_y, of_h = outputs.split([y.numel(), run.h.numel()])
            return loss.data(of_y.view_as(y), target) + activity.value(of_h.view_as(run.h))

        self._data, self.whole_loss = data, DoubleBackward(loss.total(y, target, leaves, run.h), block)
        self._newton: GaussNewton | None = None

    def __call__(self, direction: Mapping[str, Tensor], part: Part = "hessian") -> dict[str, Tensor]:
        """H θ' by parameter name, each [V,...], of V directions; of the whole loss or of one of its parts."""
        if part == "hessian":
            return self.whole_loss(direction)
        if self._newton is None:
            self._newton = GaussNewton(self._outputs, self._data, self._block)
        newton = self._newton(direction)
        if part == "gauss_newton":
            return newton
        return {name: H - newton[name] for name, H in self.whole_loss(direction).items()}
