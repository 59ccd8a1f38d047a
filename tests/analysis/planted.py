"""Synthetic studies whose truth is known: a table of runs with planted differences between rules."""

import numpy as np
import pandas as pd

LOSS = np.geomspace(2.3, 0.2, 12)


def study(rng, n, rules, spread=0.01, shared=0.5, settings=((1.0, "digits"),)):
    """A tidy table.

    rules: rule -> (mean gap, log sharpness, spread factor of the gap, slope of the gap on a run's log sharpness, ρ).
    Losses fall along LOSS times a factor per run, so runs reach a loss at different steps; gap and sharpness
    depend on the loss through known lines, so unmatched comparisons would mislead.
    """
    rows = []
    for alpha, task in settings:
        common = rng.normal(size=n)
        for rule, (gap, log_sharpness, factor, slope, rho) in rules.items():
            for seed in range(n):
                own = np.sqrt(shared) * common[seed] + np.sqrt(1 - shared) * rng.normal()
                curve = 0.3 * rng.normal()
                shift = np.exp(0.2 * rng.normal())
                for k, loss in enumerate(LOSS):
                    loss = min(2.3, loss * shift)
                    value = gap + factor * spread * own + slope * curve + 0.02 * np.log(2.3 / loss)
                    rows.append(
                        {
                            **{"condition": rule, "rule": rule, "alpha": alpha, "task": task, "seed": seed},
                            **{"status": "finished", "step": 100 * k, "lr": 0.01, "train/loss": loss},
                            **{"gap_noisy/accuracy": value, "gap/accuracy": value / 4, "gap_noisy/loss": value},
                            "sharpness/lambda_max": np.exp(log_sharpness + curve + 0.5 * np.log(loss / 2.3)),
                            **{"alignment/rho": rho, "alignment/cosine": np.sqrt(rho)},
                        }
                    )
    return pd.DataFrame(rows)
