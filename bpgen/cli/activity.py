"""`bpgen activity`: what the neurons of a run do, as a file for other programs."""

from __future__ import annotations

from pathlib import Path

from bpgen.cli.listing import Parser
from bpgen.errors import BpgenError, require

DESCRIPTION = """\
Write what the neurons of a run do on the sequences of a split, without noise: inputs, activity, outputs, targets, and
what is known of each trial besides, such as the strength of its evidence, or the further arrays of your own .npz file.
In Python it is `bpgen.load_run(RUN).activity(SPLIT)`."""
EPILOG = """\
examples:
  bpgen activity runs/romo-rflo-seed0                              writes romo-rflo-seed0-test.npz here
  bpgen activity runs/romo-rflo-seed0 --split val --out activity.csv --samples 20
  bpgen activity runs/romo-rflo-seed0 --step 0 --out untrained.npz

In the .npz file: x [T,n,I], h [T,n,N], outputs [T,n,O], target, mask [T,n] where steps are weighted, info_NAME [n,...]
for everything that is known of a trial, and about, which says what it is. T is time, n sequences. A .csv file has a row
for every sequence and step."""


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = Parser(prog="bpgen activity", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--split", default="test", metavar="NAME", help="train, val or test (default: test)")
    parser.add_argument("--step", default="last", metavar="N|best", help="which evaluation (default: the last one)")
    parser.add_argument("--samples", type=int, metavar="N", help="only the first so many sequences (default: all)")
    parser.add_argument("--out", metavar="FILE", help="a .npz or .csv file (default: NAME-SPLIT.npz here)")
    options = parser.parse_args(argv)
    require(options.samples is None or options.samples >= 1, f"--samples must be positive, got {options.samples}.")
    file = options.out or f"{Path(options.run).expanduser().resolve().name}-{options.split}.npz"
    if Path(file).suffix not in (".npz", ".csv"):
        raise BpgenError(f"--out must end in .npz or .csv, got {file}.")
    from bpgen.run.replay import load_run, saved_steps

    require(options.step != "all", "--step takes one evaluation here: a number, last or best.")
    (step,) = saved_steps(options.run, options.step).steps
    loaded = load_run(options.run, step)
    found = loaded.activity(options.split, options.samples)
    rule, task, seed = loaded.config["rule"]["name"], loaded.config["task"]["name"], loaded.config["seed"]
    found.save(
        file, f"{rule} on {task}, seed {seed}, step {step}, {options.split} split; time, sequences, then numbers"
    )
    T, n, N = found.h.shape
    known = f"; known of each: {', '.join(found.info)}" if found.info else ""
    print(f"{file}: {N} neurons, {T} steps, {n} {options.split} sequences at step {step}{known}")
    return 0
