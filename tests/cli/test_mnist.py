"""The released experiment of Liu et al. 2022 on real MNIST, shortened; needs the data folder (BPGEN_MNIST)."""

import os
from pathlib import Path

import pandas as pd
import pytest

from bpgen.cli import main

REAL = Path(os.environ.get("BPGEN_MNIST", Path(__file__).parents[3] / "shared" / "data" / "mnist"))
SHORT = [
    *("--trainer.max_steps", "60", "--evaluation.every", "30", "--gap.train_samples", "1000", "--wandb", "off"),
    *("--gap.test_samples", "1000", "--sharpness.samples", "64", "--optimizer.lr", "0.03"),
]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no MNIST in {REAL}; set BPGEN_MNIST to a folder of its IDX files")
@pytest.mark.parametrize("rule", ["bptt", "three_factor"])
def test_the_released_configs_run_on_real_mnist(rule, tmp_path):
    config = ["--config", f"liu2022_{rule}", "--task.data_dir", str(REAL)]
    assert main(["fit", *config, *SHORT, "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / f"seqmnist-{rule}-seed0" / "metrics.csv")
    assert table["step"].tolist() == [0, 30, 60]
    assert table.notna().all(axis=None)
    assert table["train/loss"].iloc[-1] < 0.9 * table["train/loss"][0]
    assert (table["train/objective"] > table["train/loss"]).all()
    assert (table["sharpness/released"] > 0).all()
    exact = abs(table["alignment/cosine/W_rec"].iloc[-1] - 1) < 1e-4
    assert exact == (rule == "bptt")
    assert (table["alignment/cosine/W_in"].iloc[-1] > 0.5) == (rule == "bptt")  # three-factor: the last row of pixels
