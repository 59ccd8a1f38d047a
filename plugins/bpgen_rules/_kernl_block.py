"""Equations (1) to (4) of `bpgen_rules.kernl` over many steps at once, while its kernel A and decays γ stand still."""

import torch
from torch import Tensor

from bpgen.rules import Increments, State, Steps, gradients_of_currents, gradients_of_own


def met(trace: Tensor, steps: Steps, keep: Tensor, told: Tensor) -> tuple[Tensor, Increments]:
    """Equations (1) and (2): what meets the traces is filtered backwards, e comes once, at the end.

    Args:
        trace: e [B,N,X] before the steps.
        steps: which.
        keep: 1 - γ [N].
        told: (q_t D_t) A [k,B,N].

    Returns: e after them, and the gradients.
    """
    run, C, pre = steps.run, steps.C[:, :, 0, 0], steps.pre  # C [k,B,N]
    rows: list[Tensor] = []
    for row in reversed(told.unbind(0)):
        rows.append(torch.addcmul(row, keep, rows[-1]) if rows else row)
    c = C * torch.stack(rows[::-1])
    grads = gradients_of_currents(run.network, run.params, c.flatten(0, 1).mT @ pre.flatten(0, 1))
    came = gradients_of_own(run.network, run.params, torch.einsum("bn,bnx->nx", keep * rows[-1], trace))
    grads = {name: grads[name] + g if name in grads else g for name, g in came.items()}
    ages = torch.arange(len(C) - 1, -1, -1, device=C.device).unsqueeze(1)
    factors = C * (keep**ages).unsqueeze(1)
    added = factors.permute(1, 2, 0) @ pre.transpose(0, 1)  # [B,N,Q]
    added = torch.nn.functional.pad(added, (0, trace.shape[-1] - added.shape[-1]))
    return (keep ** len(C)).unsqueeze(-1) * trace + added, grads


def kicked(state: State, steps: Steps, keep: Tensor, A: Tensor, sigma: float) -> tuple[State, Increments]:
    """Equations (3) and (4): the second run after the steps, and what it teaches."""
    run, kicks = steps.run, steps.draws["kicks"]
    neuron, W, I = run.network.neuron, run.params["W_rec"].mT, run.currents
    apart, omega, by_decay = state["apart"], state["omega"], state["by_decay"]
    rows = []
    for t in range(run.n_steps):
        other = run.states[t] + apart.unsqueeze(1)  # ŝ_{t-1}
        hop = (neuron.g(other) - run.h[t]) @ W
        apart = (neuron.f(other, I[t + 1] + hop.unsqueeze(1)) - run.states[t + 1]).squeeze(1)
        apart = torch.add(apart, kicks[t], alpha=sigma)
        by_decay = keep * by_decay - omega
        omega = torch.addcmul(kicks[t], keep, omega)
        rows.append((apart, omega, by_decay))
    parts, omegas, slopes = (torch.stack(each).flatten(0, 1) for each in zip(*rows, strict=True))  # [k·B,N]
    wrong = omegas @ A.mT - parts / sigma
    wrong = wrong / (1 + omegas.square().sum(-1, keepdim=True)) / len(omega)
    taught = {"kernel": wrong.mT @ omegas, "decay": ((wrong @ A) * slopes).sum(0)}
    return {"apart": apart, "omega": omega, "by_decay": by_decay}, taught
