"""Run and study folders as bpgen writes them, without training."""

import csv
import json
from pathlib import Path

import yaml

from bpgen.run.config import Config
from bpgen.run.folder import RunFolder

METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/accuracy")
MEASURED = ("test_noisy/accuracy", "gap/accuracy", "gap_noisy/accuracy", "sharpness/lambda_max", "sharpness/residual")


def run(place, rng, *, status="finished", message="", evaluations=6, **config):
    """One folder; its numbers fall and rise as those of a run, and mean nothing."""
    folder = RunFolder.create(Config.of({"task": {"name": "digits"}, **config, "wandb": "off", "out": str(place)}))
    for i in range(evaluations):
        loss = 2.3 * 0.6**i * float(rng.uniform(0.9, 1.1))
        accuracy = 1 - loss / 3
        row = dict.fromkeys(METRICS, loss) | {m: accuracy for m in METRICS if m.endswith("accuracy")}
        row |= {"gap/accuracy": 0.02, "gap_noisy/accuracy": float(rng.normal(0.1, 0.01)), "test_noisy/accuracy": 0.5}
        row |= {"sharpness/lambda_max": float(rng.lognormal(2, 0.1)), "sharpness/residual": 1e-4}
        row |= {"alignment/cosine": 0.5, "alignment/rho": 0.4}
        folder.append({"epoch": i / 2, "step": 10 * i, "lr": 0.1, **row})
    if status != "unfinished":
        versions = {"bpgen": "0.1.0", "python": "3.11.0", "torch": "2.13.0", "lightning": "2.6.6"}
        seconds = {"total": 2.5, "training": 2.0, "measuring": {}}
        summary = {"status": status, "message": message, "seconds": seconds, "versions": versions}
        folder.write_summary({**summary, "config_hash": folder.config().hash, "seed": folder.config().seed})
    return folder


def study(folder, rng, rules=("bptt", "rflo"), seeds=3, name="s", question="Which is sharper?", status="finished"):
    """A study of rules on digits: plan.yaml, runs.csv, and a folder for every run."""
    folder = Path(folder)
    (folder / "runs").mkdir(parents=True)
    plan = {"name": name, "question": question, "base": ["digits"], "axes": {"rule": list(rules)}}
    (folder / "plan.yaml").write_text(yaml.safe_dump({**plan, "seeds": list(range(seeds))}))
    rows = []
    for rule in rules:
        for seed in range(seeds):
            made = run(folder / "runs" / rule, rng, rule={"name": rule}, seed=seed, status=status)
            facts = {"condition": rule, "rule": rule, "alpha": 1.0, "task": "digits", "reuses_training": False}
            rows.append({**facts, "seed": seed, "status": status, "config_hash": made.config().hash})
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def edit_summary(folder, **changes):
    file = folder.path / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
