"""Truncated backpropagation through time: exact, but only a few steps back.

With a window of k steps, in the recursion (1) of `bptt`, two different rules:
    (1) blocks    all paths (through W_rec and through the neuron's own leak) are cut at t = k, 2k, ...: a loss
                  credits the currents of its own block up to itself
    (2) sliding   the loss at step t credits the currents of steps t-k+1 .. t
Source: Williams and Peng 1990, Neural Computation 2, 490: BPTT(h; h') with h = h' = k is (1), h = k, h' = 1 is (2).
With a loss at the last step alone, (2) credits the last k steps and (1) the last block, counted from t = 1.
Output feedback (y_{t-1} -> I_t, its readout filter included) is among the paths that (1) cuts; (2) refuses it.
A leaky readout (κ > 0) is not cut: its filter carries a loss back to all activities before the truncation begins.
Shapes: as `bptt`.
Cost: (1) N² per step, memory k·N if run block by block (T·N here); (2) k·N² per step, memory T·N.
Exact: k >= T, except for the initial state under (2), which lies one step further back. Neurons: all.
"""

from typing import Literal

from torch import Tensor

from bpgen.rules import (
    BpgenError,
    Credit,
    Feedback,
    Limit,
    Network,
    OfflineRule,
    Traits,
    Trajectory,
    choice,
    propagate,
    require,
)

Style = Literal["blocks", "sliding"]


class TruncatedBPTT(OfflineRule):
    """Truncated backpropagation through time.

    Args:
        window: number of steps k that credit may travel back, the loss's own step included.
        style: "blocks" cuts the sequence at multiples of the window, "sliding" looks back from every step.
    """

    traits = Traits(
        time_per_step="N² (blocks), k N² (sliding)",
        exact_when=Limit(("by its options",), condition="with window >= T"),
        exact_with={"window": 1000},
    )

    def __init__(self, window: int = 10, style: Style = "blocks") -> None:
        super().__init__()
        require(window >= 1, f"rule.window must be a positive number of steps, got {window}.")
        self.window, self.style = window, choice("style of tbptt", style, Style)
        self.feedback = Feedback("symmetric")

    def bind(self, network: Network, seed: int = 0) -> "TruncatedBPTT":
        """Refuse output feedback where its path has no window."""
        super().bind(network, seed)
        if network.W_fb is not None and self.style == "sliding":
            raise BpgenError("tbptt with style='sliding' is not defined with network.output_feedback; use 'blocks'.")
        return self

    def credit(self, trajectory: Trajectory, error: Tensor) -> Credit:
        """Equation (1) or (2)."""
        q, W_rec = self.feedback.signal(trajectory, error), trajectory.params["W_rec"]
        if self.style == "blocks":
            return propagate(trajectory, q, carrier=W_rec, blocks=self.window, through_outputs=True)
        return propagate(trajectory, q, carrier=W_rec, reach=self.window)
