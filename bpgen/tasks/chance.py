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
    level = chance_level(loss, train, test)
    if loss == "binary_cross_entropy":
        return f"To answer always what is commoner of each label is right for {level:.1%} of the {on} labels."
    if train.target.is_floating_point():
        return f"To answer the mean of the training targets costs ½·squared error {level:.3g} on {on}."
    return f"To answer the commonest class always is right for {level:.1%} of the {on} targets."


def chance_level(loss: str, train: Split, test: Split) -> float:
    """The same as a number: the share that is right, or ½·squared error where targets are values; see `chance`."""
    if loss == "binary_cross_entropy":
        known, new = (s.target if s.mask is None or s.target.ndim == 2 else s.target[s.mask > 0] for s in (train, test))
        return float((new > 0.5).eq(known.flatten(0, -2).mean(0) > 0.5).double().mean())
    if train.target.is_floating_point():
        mean = train.target.mean(dim=tuple(range(train.target.ndim - 1)))
        error = 0.5 * (test.target - mean).square().sum(-1)
        return float((error if test.mask is None or error.ndim != 2 else error[test.mask > 0]).mean())
    seen, asked = (s.target[s.mask > 0] if s.mask is not None and s.sample_axis else s.target for s in (train, test))
    return float((asked == seen.flatten().mode().values).double().mean())
