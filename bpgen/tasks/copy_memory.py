"""Copy task: hold a sequence of symbols over a delay, and repeat it.

Source: S. Hochreiter and J. Schmidhuber (1997), Neural Computation 9:1735; in the form of M. Arjovsky, A. Shah and
Y. Bengio (2016), Unitary evolution recurrent neural networks, ICML, section 5.1, whose difficulty is 8 symbols,
length 10 and delays of 100 and more.
Differences: the loss is taken at the steps of recall only, not at those where the right answer is a blank; a blank is
no input rather than an input of its own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from bpgen.errors import require
from bpgen.streams import generator
from bpgen.tasks.base import SPLITS, Split, SplitName
from bpgen.tasks.trials import TrialTask, at_steps, clean_gap_of

_SHARES = (0.7, 0.15, 0.15)  # of the sequences, for SPLITS
_MOST = 10**6  # beginnings of sequences that are told apart to share them out


class CopyMemory(TrialTask):
    """Copy task: symbols, a delay, a signal, and then the same symbols again; one class a step of recall.

    Inputs are one-hot: the symbols and, as the last input, the signal to recall. Chance is 1/symbols. No sequence of
    validation or test is one of training: the possible sequences (their beginnings, where there are more than a
    million) are shared out at random, 70, 15 and 15 %. With fewer than 7 none can be held out.

    Args:
        length: symbols to be held.
        delay: blank steps between the last symbol and the signal; Arjovsky's T blanks are T - 1 and the signal.
        symbols: size of the alphabet.
        held_out: false is the task of version 0.1: every split draws from all sequences, and recall begins at the step
            of the signal.
        **trials: see `TrialTask`.
    """

    when: ClassVar[Literal["last", "all"]] = "all"

    def __init__(
        self,
        length: int = 3,
        delay: int = 5,
        symbols: int = 4,
        held_out: bool = True,
        noise_sd: float = 0.2,
        **trials: Any,
    ) -> None:
        super().__init__(noise_sd=noise_sd, **trials)
        require(length >= 1, f"task.length must be a positive number of symbols, got {length}.")
        require(delay >= 0, f"task.delay must be >= 0, got {delay}.")
        require(symbols >= 2, f"task.symbols must be at least 2, got {symbols}.")
        self.length, self.delay, self.held_out = length, delay, held_out
        self.n_in, self.n_out, self.n_steps = symbols + 1, symbols, 2 * length + delay + held_out
        self.input_names = [*(f"symbol {i}" for i in range(symbols)), "signal"]
        if symbols**length < 7:
            self.reuses_training = True
            self.clean_gap = f"{symbols} symbols make {symbols**length} sequences of {length}, too few to hold any out"
        elif not held_out and symbols**length < 10**9:
            self.reuses_training = True
            self.clean_gap = clean_gap_of(symbols**length, self.sizes["train"])

    def trials(self, n: int, random: torch.Generator) -> Split:
        """x [T,n,symbols+1], target int64 [T,n], mask on the steps of recall; of all sequences."""
        return self._shown(torch.randint(0, self.n_out, (self.length, n), generator=random))

    def load(self) -> dict[SplitName, Split]:
        """Trials of each split from its own share of the sequences."""
        if self.reuses_training or not self.held_out:
            return super().load()
        told = max(k for k in range(1, self.length + 1) if k == 1 or self.n_out**k <= _MOST)
        codes = torch.randperm(self.n_out**told, generator=generator(self.data_seed, "CopyMemory sequences"))
        train, val = (round(share * len(codes)) for share in _SHARES[:2])
        splits = {}
        for name, share in zip(SPLITS, codes.split([train, val, len(codes) - train - val]), strict=True):
            random, n = generator(self.data_seed, f"CopyMemory {name}"), self.sizes[name]
            sequence = torch.randint(0, self.n_out, (self.length, n), generator=random)
            code = share[torch.randint(0, len(share), (n,), generator=random)]
            for k in range(told):
                sequence[k] = code // self.n_out**k % self.n_out
            splits[name] = self._shown(sequence)
        return splits

    def _shown(self, sequence: torch.Tensor) -> Split:
        """The trials of sequences [length,n]."""
        n, signal = sequence.shape[1], self.length + self.delay
        recall = self.n_steps - self.length
        x = torch.zeros(self.n_steps, n, self.n_in)
        x[: self.length] = F.one_hot(sequence, self.n_in).float()
        x[signal, :, -1] = 1
        target = torch.zeros(self.n_steps, n, dtype=torch.long)
        target[recall:] = sequence
        return Split(x, target, at_steps(self.n_steps, n, recall))

    def ideal_answer(self, x: torch.Tensor, noise_sd: float) -> torch.Tensor:
        """The largest of the symbols' inputs, step by step."""
        answer = torch.zeros(x.shape[:2], dtype=torch.long)
        answer[-self.length :] = x[: self.length, :, :-1].argmax(-1)
        return answer
