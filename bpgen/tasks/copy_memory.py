"""Copy task: hold a sequence of symbols over a delay, and repeat it.

Source: S. Hochreiter and J. Schmidhuber (1997), Neural Computation 9:1735; in the form of M. Arjovsky, A. Shah and
Y. Bengio (2016), Unitary evolution recurrent neural networks, ICML, section 5.1, whose difficulty is 8 symbols,
length 10 and delays of 100 and more.
Difference: the loss is taken at the steps of recall only, not at those where the right answer is a blank.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from bpgen.errors import require
from bpgen.tasks.base import Split
from bpgen.tasks.trials import TrialTask, at_steps


class CopyMemory(TrialTask):
    """Copy task: symbols, a delay, a signal, and the same symbols again; one class a step of recall.

    Inputs are one-hot: the symbols and, as the last input, the signal to recall. Chance is 1/symbols.

    Args:
        length: symbols to be held.
        delay: blank steps between the last symbol and the signal.
        symbols: size of the alphabet.
        **trials: see `TrialTask`.
    """

    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(self, length: int = 3, delay: int = 5, symbols: int = 4, noise_sd: float = 0.2, **trials: Any) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(length >= 1, f"task.length must be a positive number of symbols, got {length}.")
        require(delay >= 0, f"task.delay must be >= 0, got {delay}.")
        require(symbols >= 2, f"task.symbols must be at least 2, got {symbols}.")
        self.length, self.delay = length, delay
        self.reuses_training = symbols**length < 10**9  # so few sequences come twice
        self.n_in, self.n_out, self.n_steps = symbols + 1, symbols, 2 * length + delay

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,symbols+1], target int64 [T,n], mask on the steps of recall."""
        sequence = torch.randint(0, self.n_out, (self.length, n), generator=random)
        recall = self.length + self.delay
        x = torch.zeros(self.n_steps, n, self.n_in)
        x[: self.length] = F.one_hot(sequence, self.n_in).float()
        x[recall, :, -1] = 1
        target = torch.zeros(self.n_steps, n, dtype=torch.long)
        target[recall:] = sequence
        return Split(x, target, at_steps(self.n_steps, n, recall))
