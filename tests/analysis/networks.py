"""Simulated studies of saved networks: which measure drives the gap is known."""

import numpy as np
import pandas as pd

LOSS = np.geomspace(2.3, 0.2, 8)
RULES = ("bptt", "three_factor", "rflo", "scaled_bptt")


def networks(rng, n=20, within=0.0, between=0.0, measures=3, rules=RULES, settings=(1.0,), share=1.0):
    """A row per saved network.

    Every measure m and the gap are z = (part of the run) + (part of the rule) + a trend along training.
    within: how much of the gap's part of a run is that of measure "m0"; the others are unrelated to it.
    between: how far the rules' parts of m0 and of the gap lie apart, in standard deviations of a run; they agree.
    share: which part of the runs of a rule gets to the last two losses.
    """
    rows = []
    for alpha in settings:
        offsets = between * rng.permutation(len(rules))
        common = rng.normal(size=(measures + 1, n))
        for rule, offset in zip(rules, offsets, strict=True):
            for seed in range(n):
                own = (common[:, seed] + rng.normal(size=measures + 1)) / np.sqrt(2)
                gap = within * own[0] + np.sqrt(1 - within**2) * own[-1] + offset
                shift, last = np.exp(0.1 * rng.normal()), len(LOSS) if rng.random() < share else len(LOSS) - 2
                for k, loss in enumerate(LOSS[:last]):
                    row = {"condition": rule, "rule": rule, "alpha": alpha, "task": "digits", "seed": seed}
                    row |= {"status": "finished", "step": 100 * k, "train/loss": min(2.3, loss * shift)}
                    trend, jitter = np.log(2.3 / row["train/loss"]), 0.2 * rng.normal(size=measures + 1)
                    row |= {f"m{i}": own[i] + (offset if i == 0 else 0) + trend + jitter[i] for i in range(measures)}
                    rows.append(row | {"gap": gap + trend + jitter[-1]})
    return pd.DataFrame(rows)
