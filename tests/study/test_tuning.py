"""The choice of a condition's nuisance parameters, on planted scores and fates."""

from types import SimpleNamespace

import pytest

from bpgen.study.plan import Tuning
from bpgen.study.tuning import choose

RATES = [0.01, 0.03, 0.1, 0.3]


def tried(fates, label="r", scale=None):
    """Runs of two seeds by learning rate: a loss per seed, or how the run ended."""
    runs = []
    for lr, pair in zip(RATES, fates, strict=True):
        for end in pair:
            ended = isinstance(end, str)
            rows = [{"val/loss": 99.0}, {} if end is None else {"val/loss": end}]
            runs.append(
                SimpleNamespace(
                    condition=SimpleNamespace(label=label),
                    tuned={"optimizer.lr": lr, **({} if scale is None else {"rule.scale": scale})},
                    status=end if ended else "finished",
                    folder=SimpleNamespace(rows=lambda rows=rows: rows),
                )
            )
    return runs


def chosen(runs, axes=None):
    tune = Tuning({"optimizer.lr": RATES, **(axes or {})}, [1, 2], "val/loss", {})
    return choose([SimpleNamespace(label="r")], tune, runs)


@pytest.mark.parametrize(
    ("fates", "best", "edge"),
    [
        ([(3, 3), (1, 2), (2, 2), (4, 4)], 0.03, ""),
        ([(3, 3), (2, 2), (1, 1), (0.1, 0.1)], 0.3, "optimizer.lr"),
        ([(0.1, 3), (2, 1), (1, 3), (4, 4)], 0.03, ""),  # the mean over seeds decides
        ([(3, 3), (2, 2), ("diverged", 0.1), (4, 4)], 0.03, ""),  # one run that diverged is enough
        ([(3, 3), (2, 2), ("diverged", 9), (0.1, 0.1)], 0.03, ""),  # and what is above is luck
        ([(3, 3), (2, 2), ("failed", 9), (0.1, 0.1)], 0.3, "optimizer.lr"),  # which a failure says nothing of
        ([(3, 3), (float("nan"), 0.1), (None, 0.1), (4, 4)], 0.01, "optimizer.lr"),
    ],
)
def test_the_best_stable_candidate_is_chosen(fates, best, edge):
    got, table = chosen(tried(fates))
    assert got == {"r": {"optimizer.lr": best}}
    assert table.set_index("optimizer.lr")["chosen"].to_dict() == {lr: lr == best for lr in RATES}
    assert table.loc[table["chosen"], "edge"].item() == edge


def test_a_rate_that_diverged_counts_only_with_all_else_equal():
    stable, unstable = [(3, 3), (2, 2), (1, 1), (0.5, 0.5)], [(3, 3), ("diverged", 2), (1, 1), (0.1, 0.1)]
    got, table = chosen(tried(stable, scale=0.5) + tried(unstable, scale=1.0), {"rule.scale": [0.5, 1.0]})
    assert got == {"r": {"optimizer.lr": 0.3, "rule.scale": 0.5}}
    why = table[table["rule.scale"] == 1.0].set_index("optimizer.lr")["why"].to_dict()
    assert why == {0.01: "", 0.03: "diverged", 0.1: "above 0.03, which diverged", 0.3: "above 0.03, which diverged"}


def test_nothing_is_chosen_where_nothing_finished():
    got, table = chosen(tried([("diverged", 1), ("failed", 1), ("interrupted", 1), (0.1, 0.1)]))
    assert got == {}
    assert not table["chosen"].any()
