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


def segment_of(T: int, segments: int) -> Tensor:
    """The segment of every step, int64 [T]: as many as there are, at most T, of equal lengths but for one step."""
    return torch.arange(T) * min(segments, T) // T


def drops(problem: Problem, run: Trajectory, of: Tensor, baseline: Baseline) -> Tensor:
    """Equation (1), for each sequence: [segments,B].

    Args:
        problem: network and batch.
        run: its run.
        of: the segment of every step [T].
        baseline: what stands in a masked segment: "zero", or the sequence's own "mean" over time.
    """
    plain, n = problem.without_regulariser(), int(of[-1]) + 1
    masked = of.unsqueeze(1) == torch.arange(n, device=of.device)  # [T,segments]
    masked = masked.repeat_interleave(problem.batch, 1).unsqueeze(-1)  # [T,segments·B,1]
    many = repeated(plain, n)
    instead = many.x.mean(0) if baseline == "mean" else torch.zeros_like(many.x[0])
    many = replace(many, x=torch.where(masked, instead, many.x))
    return many.per_sample(many.run()).unflatten(0, (n, problem.batch)) - plain.per_sample(run)


def importance(drop: Tensor, inverted: bool = False) -> Tensor:
    """Equation (2) of drop_{s(t)} [T,B]; or max I + min I - I, which turns it upside down."""
    raw = _OFFSET + drop
    low, high = raw.amin(0), raw.amax(0)
    spread = high - low
    share = (raw - low) / torch.where(spread > 0, spread, 1.0)
    I = torch.where(spread > 0, 0.5 + 0.5 * share, 0.5)
    return I.amax(0) + I.amin(0) - I if inverted else I
