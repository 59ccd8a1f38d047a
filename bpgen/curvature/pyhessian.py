"""PyHessian as an independent second opinion, fenced.

PyHessian finds the eigenvalue of largest magnitude, with its sign, by power iteration in the network's dtype, and
further ones by deflation. What it does to its surroundings stays in here:
    it switches the model to eval mode and leaves a graph in every .grad   the model is one parameter θ [P] of its
                                                                           own; the network is no part of it
    that graph leaks, since θ and its .grad hold each other                .grad is set to None at the end
    it draws from the global random state                                  seeded, and put back
    it weights batches by size(0), which is T for time-major data          one batch, never a loader
    it defaults to CUDA                                                    cuda=False
    it warns of the leak above                                             silenced, that one warning only
It is imported only when used. It stops when the eigenvalue, not the vector, changes by less than `tol`: a residual
of about √tol·|λ| is then usual, and its default 1e-3 has left errors of 0.4 to 3 % on trained networks.

Reference: Z. Yao, A. Gholami, K. Keutzer, M. W. Mahoney, PyHessian: Neural networks through the lens of the
Hessian, IEEE Big Data (2020).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bpgen.curvature.block import Block, FreeEntries
from bpgen.curvature.lanczos import Eigenpairs, Which
from bpgen.curvature.products import HessianProducts
from bpgen.errors import require
from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.streams import generator


def pyhessian(
    network: Network,
    params: Mapping[str, Tensor],
    x: Tensor,
    target: Tensor,
    loss: Loss,
    block: Block = "W_rec",
    initial_state: Tensor | None = None,
    *,
    top: int = 1,
    which: Which = "magnitude",
    tol: float = 1e-3,
    max_iterations: int = 100,
    seed: int = 0,
) -> Eigenpairs:
    """The `top` largest eigenvalues as PyHessian finds them, with residuals of our own.

    The "largest" algebraic ones are those of largest magnitude of H + |λ_m| I, with λ_m the eigenvalue of largest
    magnitude: nothing negative is left there. The shift is added to the loss as ½ |λ_m| ‖θ‖².

    Args:
        network, params, x, target, loss, block, initial_state: as for `HessianProducts`; on the CPU.
        top: how many eigenvalues.
        which: "magnitude", PyHessian's own, with signs; or "largest".
        tol: relative change of the eigenvalue between two iterations at which PyHessian stops.
        max_iterations: PyHessian's maxIter, for each eigenvalue.
        seed: of its starting vectors.

    Returns:
        `Eigenpairs`, where `converged` means what it means for Lanczos: residuals within tol·|λ|.

    Raises:
        BpgenError: tensors that are not on the CPU, or a block as for `HessianProducts`.
    """
    require(x.device.type == "cpu", f"backend 'pyhessian' runs on the CPU, the data is on {x.device}.")
    products = HessianProducts(network, params, x, target, loss, block, initial_state)
    model = _Block(network, params, loss, block, initial_state)

    def eigenpairs(n: int, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        values, vectors = _power_iteration(model, (x, target), shift, n, tol, max_iterations, seed)
        return values - shift, vectors

    if which == "magnitude":
        values, vectors = eigenpairs(top)
    else:
        values, vectors = eigenpairs(1)
        if top > 1 or values[0] < 0:
            values, vectors = eigenpairs(top, abs(values[0].item()))
    vectors = nn.functional.normalize(vectors)
    Hv = torch.stack([products(v) for v in vectors])
    residuals = (Hv - values.unsqueeze(1) * vectors).norm(dim=1)
    order = (values if which == "largest" else values.abs()).argsort(descending=True)
    converged = bool((residuals <= tol * values.abs()).all())
    return Eigenpairs(values[order], vectors[order], residuals[order], model.products + top, converged)


class _Block(nn.Module):
    """The block as a model of one parameter θ [P], which reads all other weights from `params`.

    products: how often PyHessian asked for one; it clears the gradients before each.
    """

    def __init__(
        self,
        network: Network,
        params: Mapping[str, Tensor],
        loss: Loss,
        block: Block,
        initial_state: Tensor | None,
    ) -> None:
        super().__init__()
        self.free = FreeEntries(network, params, block)
        self.params = {name: p.detach().clone() for name, p in params.items()}
        self.theta = nn.Parameter(self.free.gather(self.params))
        self.loss, self.initial_state, self.products = loss, initial_state, 0
        self.run = network.run  # a function, not a child: eval() and zero_grad() do not reach the network

    def forward(self, x: Tensor) -> Tensor:
        """Outputs at θ."""
        weights = {**self.params, **self.free.scatter(self.theta, self.params)}
        return self.run(weights, x, when=self.loss.when, initial_state=self.initial_state, in_place=False).outputs

    def objective(self, outputs: Tensor, target: Tensor, shift: float) -> Tensor:
        """The whole loss plus ½ shift ‖θ‖²."""
        weights = {**self.params, **self.free.scatter(self.theta, self.params)}
        return self.loss.total(outputs, target, weights) + 0.5 * shift * self.theta.square().sum()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear .grad, and count."""
        self.products += 1
        super().zero_grad(set_to_none)


def _power_iteration(
    model: _Block, data: tuple[Tensor, Tensor], shift: float, n: int, tol: float, max_iterations: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n] and vectors [n,P] in float64, with everything global put back afterwards."""
    from pyhessian import hessian

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True", UserWarning)
        torch.default_generator.manual_seed(generator(seed, "pyhessian").initial_seed())
        power = hessian(model, lambda y, target: model.objective(y, target, shift), data=data, cuda=False)
        values, vectors = power.eigenvalues(maxIter=max_iterations, tol=tol, top_n=n)
        nn.Module.zero_grad(model, set_to_none=True)
    return torch.tensor(values, dtype=torch.float64), torch.stack([v[0].detach() for v in vectors]).double()
