"""What a stretch of the input is worth: what masking it does to the log-likelihood of the outcome.

    (1) drop_s = S - S_s     S the log-likelihood of a sequence, minus its loss; S_s with segment s of the input masked
    (2) I_t = 0.5 + 0.5 (raw_t - min raw) / (max raw - min raw),  0.5 where all are the same;  raw_t = 0.2 + drop_{s(t)}
Source: Khandoga, Yuan and Sankarapu 2026, arXiv 2602.09331, and the lab's code, for spans of tokens.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from bpgen.rules import Problem, Trajectory
from bpgen_rules._perturbation import repeated

Baseline = Literal["zero", "mean"]
_OFFSET = 0.2  # as published; (2) does not see it


def own_steps(problem: Problem) -> Tensor:
    """How many steps of each sequence can matter to its loss [B]: all up to the last that has an error."""
    mask, T = problem.loss.mask, problem.n_steps
    if mask is None:
        return torch.full((problem.batch,), T, device=problem.x.device)
    numbers = torch.arange(1, T + 1, device=mask.device).unsqueeze(1)
    return ((mask != 0) * numbers).amax(0).clamp_min(1)


def segment_of(T: int, own: Tensor, segments: int) -> Tensor:
    """The segment of every step, int64 [T,B]: of equal lengths but for one step, -1 after a sequence's own steps."""
    t = torch.arange(T, device=own.device).unsqueeze(1)
    return torch.where(t < own, t * own.clamp(max=segments) // own, -1)


def drops(problem: Problem, run: Trajectory, of: Tensor, segments: int, baseline: Baseline) -> Tensor:
    """Equation (1), at the steps of each segment: drop_{s(t)} [T,B].

    Args:
        problem: network and batch.
        run: its run.
        of: the segment of every step [T,B].
        segments: how many there are at most.
        baseline: what stands in a masked segment: "zero", or the sequence's own "mean" over time.
    """
    plain, n = problem.without_regulariser(), min(segments, problem.n_steps)
    masked = of.unsqueeze(1) == torch.arange(n, device=of.device).view(1, n, 1)  # [T,segments,B]
    many, there = repeated(plain, n), (of >= 0).unsqueeze(-1).to(problem.x)
    mean = (problem.x * there).sum(0) / there.sum(0)  # [B,I]
    instead = mean.repeat(n, 1) if baseline == "mean" else torch.zeros_like(many.x[0])
    many = replace(many, x=torch.where(masked.flatten(1, 2).unsqueeze(-1), instead, many.x))
    cost = many.per_sample(many.run()).unflatten(0, (n, problem.batch)) - plain.per_sample(run)  # [segments,B]
    return cost.gather(0, of.clamp_min(0))


def importance(drop: Tensor, of: Tensor, inverted: bool = False) -> Tensor:
    """Equation (2) of drop_{s(t)} [T,B]; or max I + min I - I, which turns it upside down."""
    raw, there = _OFFSET + drop, of >= 0
    low = torch.where(there, raw, torch.inf).amin(0)
    spread = torch.where(there, raw, -torch.inf).amax(0) - low
    share = (raw - low) / torch.where(spread > 0, spread, 1.0)
    I = torch.where(spread > 0, 0.5 + 0.5 * share, 0.5)
    ends = torch.where(spread > 0, 1.5, 1.0)  # max I + min I
    return ends - I if inverted else I


def of_mean_one(w: Tensor, of: Tensor) -> Tensor:
    """Weights [T,B] divided by their mean over a sequence's own steps; 1 after them."""
    there = of >= 0
    mean = (w * there).sum(0) / there.sum(0)
    return torch.where(there, w / mean, 1.0)
