"""The options that all rules share which broadcast the output error to the neurons through feedback weights."""

from __future__ import annotations

from bpgen.rules.base import Rule
from bpgen.rules.feedback import Feedback, FeedbackName


class Broadcast(Rule):
    """A rule whose learning signal is the output error, carried to the neurons by a `Feedback`.

    Args:
        feedback: how the output error reaches the neurons: symmetric (W_out), random, or sparse random.
        seed: seed of random feedback; by default it follows the run's seed.
        scale: an entry of random feedback has standard deviation scale/√N.
        density: fraction of neurons that receive any error, for sparse feedback.
    """

    when_diverged = "a smaller --rule.scale of random feedback"

    def __init__(
        self,
        feedback: FeedbackName = "symmetric",
        seed: int | None = None,
        scale: float = 1.0,
        density: float = 0.1,
    ) -> None:
        super().__init__()
        self.feedback = Feedback(feedback, seed, scale, density)
