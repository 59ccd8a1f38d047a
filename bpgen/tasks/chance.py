"""What is reached without looking at the inputs: the level that any result is to be compared with."""

from __future__ import annotations

from bpgen.tasks.split import Split, SplitName


def chance(loss: str, train: Split, test: Split, on: SplitName) -> str:
    """In a sentence: what it gives to answer the commonest class, or the mean, of training always.

    Args:
        loss: of the task.
        train, test: where answers come from, and where they are asked.
        on: the name of the latter.
    """
    if loss == "binary_cross_entropy":
        known, new = (s.target if s.mask is None or s.target.ndim == 2 else s.target[s.mask > 0] for s in (train, test))
        share = (new > 0.5).eq(known.flatten(0, -2).mean(0) > 0.5).double().mean()
        return f"To answer always what is commoner of each label is right for {float(share):.1%} of the {on} labels."
    if train.target.is_floating_point():
        mean = train.target.mean(dim=tuple(range(train.target.ndim - 1)))
        error = 0.5 * (test.target - mean).square().sum(-1)
        if test.mask is not None and error.ndim == 2:
            error = error[test.mask > 0]
        return f"To answer the mean of the training targets costs ½·squared error {float(error.mean()):.3g} on {on}."
    seen, asked = (s.target[s.mask > 0] if s.mask is not None and s.sample_axis else s.target for s in (train, test))
    share = (asked == seen.flatten().mode().values).double().mean()
    return f"To answer the commonest class always is right for {float(share):.1%} of the {on} targets."
