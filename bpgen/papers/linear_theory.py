"""Learning in data-aligned linear recurrent networks, mode by mode: the theory as a flow, and networks that follow it.

Student h_t = W h_{t-1} + B x_t, y_t = A h_t, and a teacher of the same kind (A*, B*, W*), on white noise x and in the
limit of long sequences. If all matrices share their modes, each mode is three numbers (a, b, w), of the teacher
(A, B, W), and learns by itself; with the feedback f of RFLO in that mode, and v, what its eligibility trace keeps:
    (1) da = a b² / (1 - w²) - b A B / (1 - w W)                              under all rules
    RFLO     (2) db = f [a b / (1 - v w) - A B / (1 - v W)]
             (3) dw = f [a b² w / ((1 - w²)(1 - v w)) - A b B W / ((1 - w W)(1 - v W))]
    BPTT     (4) db = a² b / (1 - w²) - a A B / (1 - w W)
             (5) dw = a² b² w / (1 - w²)² - a b A B W / (1 - w W)²
    tBPTT(1) is RFLO with v = 0 and f = a
and weights move against these. All solutions have a b = A B and w = W. RFLO turns away from them where f a < 0.
Source: Williams, Payeur and Lajoie, ICML 2026, arXiv 2606.00243.
A network here is `Leaky(alpha, "linear")` with autapses and without bias: W = (1-α) 1 + α W_rec, B = α W_in, v = 1-α.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from bpgen.losses import Loss
from bpgen.network import Network
from bpgen.neurons import Leaky
from bpgen.problem import Problem
from bpgen.rules import Feedback, Rule, load_rule
from bpgen.streams import generator

Modes = NDArray[np.float64]  # [3,M]: a, b, w of every mode
RuleName = Literal["bptt", "rflo", "tbptt"]
BURN = 40  # steps before the loss, until activity and traces are stationary


def velocity(rule: RuleName, modes: Modes, teacher: Modes, feedback: Modes | None = None, v: float = 0.0) -> Modes:
    """Equations (1) to (5), the gradient [3,M] that weights move against; `feedback` f [M] and v are RFLO's."""
    (a, b, w), (A, B, W) = modes, teacher
    da = a * b**2 / (1 - w**2) - b * A * B / (1 - w * W)
    if rule == "bptt":
        db = a**2 * b / (1 - w**2) - a * A * B / (1 - w * W)
        dw = a**2 * b**2 * w / (1 - w**2) ** 2 - a * b * A * B * W / (1 - w * W) ** 2
        return np.stack([da, db, dw])
    f, v = (a, 0.0) if rule == "tbptt" else (feedback, v)
    db = f * (a * b / (1 - v * w) - A * B / (1 - v * W))
    dw = f * (a * b**2 * w / ((1 - w**2) * (1 - v * w)) - A * b * B * W / ((1 - w * W) * (1 - v * W)))
    return np.stack([da, db, dw])


def flow(
    rule: RuleName, start: Modes, teacher: Modes, times: NDArray[Any], feedback: Modes | None, v: float
) -> NDArray[np.float64]:
    """The modes [K,3,M] at K increasing times from 0 on; nan once a mode has become unstable (|w| near 1)."""
    M = start.shape[1]

    def slope(_: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        return -velocity(rule, flat.reshape(3, M), teacher, feedback, v).ravel()

    def stable(_: float, flat: NDArray[np.float64]) -> float:
        return 0.999 - float(np.abs(flat[2 * M :]).max())

    stable.terminal = True  # type: ignore[attr-defined]
    span = (0.0, float(times[-1]))
    found = solve_ivp(slope, span, start.ravel(), t_eval=times, rtol=1e-8, atol=1e-10, events=stable)
    steps = np.full((len(times), 3, M), np.nan)
    steps[: len(found.t)] = found.y.T.reshape(-1, 3, M)
    return steps


@dataclass(frozen=True)
class Aligned:
    """Networks of M inputs, neurons and outputs that share their modes.

    alpha: of the neurons. V, U, Q: orthogonal [M,M], the modes of neurons, inputs and outputs.
    """

    alpha: float
    V: Tensor
    U: Tensor
    Q: Tensor

    @classmethod
    def drawn(cls, M: int, alpha: float, seed: int) -> Aligned:
        """Random modes."""
        g = generator(seed, "modes")
        V, U, Q = (torch.linalg.qr(torch.randn(M, M, generator=g, dtype=torch.float64)).Q for _ in range(3))
        return cls(alpha, V, U, Q)

    def network(self) -> Network:
        """The structure that all of them share."""
        M = len(self.V)
        neuron = Leaky(self.alpha, "linear")
        return Network(neuron, M, M, M, autapses=True, bias="none", dtype=torch.float64)

    def weights(self, modes: Modes) -> dict[str, Tensor]:
        """Weights with these modes."""
        a, b, w = (torch.from_numpy(m).diag() for m in modes)
        one = torch.eye(len(self.V), dtype=torch.float64)
        W = self.V @ w @ self.V.mT
        return {
            "W_rec": (W - (1 - self.alpha) * one) / self.alpha,
            "W_in": self.V @ b @ self.U.mT / self.alpha,
            "W_out": self.Q @ a @ self.V.mT,
        }

    def feedback(self, f: Modes) -> Tensor:
        """Feedback weights [O,N] with one number f [M] for each mode."""
        return self.Q @ torch.from_numpy(f).diag() @ self.V.mT

    def modes(self, params: dict[str, Tensor]) -> tuple[Modes, float]:
        """Modes of weights, and what share of their norm is between modes."""
        one = torch.eye(len(self.V), dtype=torch.float64)
        W = (1 - self.alpha) * one + self.alpha * params["W_rec"]
        seen = [
            self.Q.mT @ params["W_out"] @ self.V,
            self.alpha * self.V.mT @ params["W_in"] @ self.U,
            self.V.mT @ W @ self.V,
        ]
        own = torch.stack([S.diagonal() for S in seen])
        total = sum(float(S.square().sum()) for S in seen)
        modes: Modes = own.numpy()
        return modes, max(0.0, 1 - float(own.square().sum()) / total) ** 0.5


def rule_of(name: RuleName, feedback: Tensor | None) -> Rule:
    """The rule of bpgen that the equations speak of."""
    if name == "tbptt":
        return load_rule("tbptt", window=1, style="sliding")
    rule = load_rule(name)
    if feedback is not None:
        assert isinstance(rule.feedback, Feedback)
        rule.feedback.weight = feedback
    return rule


@dataclass(frozen=True)
class Training:
    """How a network is trained: plain descent on fresh white noise, B sequences of T steps after `BURN` without loss.

    rate: of all of A, B and W alike, as in the flow. every: steps between two looks.
    """

    steps: int
    rate: float = 0.04
    every: int = 20
    batch: int = 48
    T: int = 120

    @property
    def looks(self) -> NDArray[np.int64]:
        """Steps at which the weights are looked at, 0 included."""
        return np.arange(0, self.steps + 1, self.every)

    def problem(self, network: Network, params: dict[str, Tensor], teacher: dict[str, Tensor], seed: int) -> Problem:
        """A batch of white noise with the teacher's outputs."""
        shape = (BURN + self.T, self.batch, network.n_in)
        x = torch.randn(shape, generator=generator(seed, "noise"), dtype=torch.float64)
        mask = torch.zeros(shape[:2], dtype=torch.float64)
        mask[BURN:] = 1 / self.T
        target = network.run(teacher, x, when="all").outputs.clone()
        return Problem(network, params, x, target, Loss.of("mse", "all", mask))

    def run(self, aligned: Aligned, rule: Rule, start: Modes, teacher: Modes, seed: int) -> tuple[Modes, float]:
        """Modes [K,3,M] at the looks, and the share between modes at the end."""
        network, params, goal = aligned.network(), aligned.weights(start), aligned.weights(teacher)
        rule.bind(network)
        own = {"W_out": self.rate, "W_rec": self.rate / aligned.alpha**2, "W_in": self.rate / aligned.alpha**2}
        seen, between = [aligned.modes(params)[0]], 0.0
        with torch.no_grad():
            for step in range(1, self.steps + 1):
                p = self.problem(network, params, goal, seed * 100_003 + step)
                grads = rule.gradients(p).grads
                params = {n: w - own[n] * grads[n] for n, w in params.items()}
                if step % self.every == 0:
                    modes, between = aligned.modes(params)
                    seen.append(modes)
        return np.stack(seen), between
