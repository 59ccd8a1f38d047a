"""Neurons as a stranger writes them: f and g and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.neurons import Neuron


class Adaptive(Neuron):
    """d = K = 2: potential v with adaptation a; the second current gates a's growth."""

    n_states = n_currents = 2

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        v, a = s[..., 0, :], s[..., 1, :]
        drive, gate = I[..., 0, :], I[..., 1, :]
        return torch.stack([0.7 * v + torch.tanh(drive - a), 0.8 * a + 0.3 * v * torch.sigmoid(gate)], dim=-2)

    def g(self, s: Tensor) -> Tensor:
        return torch.tanh(s[..., 0, :]) * (1 + 0.2 * s[..., 1, :])


class Sine(Neuron):
    """d = K = 1, without closed forms, so that the in-place path has to use Dense gains."""

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        return 0.6 * s + 0.5 * torch.sin(I + 0.3 * s)

    def g(self, s: Tensor) -> Tensor:
        return s.squeeze(-2) + 0.3 * s.squeeze(-2) ** 2
