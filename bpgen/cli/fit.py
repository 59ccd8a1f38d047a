"""`bpgen fit`: train one network with one rule, measure it, and show the result."""

from __future__ import annotations

import textwrap

from bpgen.cli.given import given
from bpgen.cli.listing import WIDTH, joined_by_underscores
from bpgen.errors import require
from bpgen.registry import plugins
from bpgen.shipped import configs
from bpgen.tracking.sweep import in_sweep

DRY = "--dry_run"
DIVERGED = 3  # exit code
INDENT = " " * 22
MANUAL = """\
bpgen fit: train a recurrent network with a learning rule, and measure along the way, on the true loss,
  - sharpness: the leading eigenvalue of the Hessian,
  - the generalization gap: test against training performance of the same weights,
  - alignment: the rule's gradient against the true one (BPTT).

examples:
  bpgen fit --rule rflo
  bpgen fit --rule three_factor --neuron.alpha 0.2 --network.n_rec 256 --seed 3
  bpgen fit --rule rflo --task seqmnist --task.data_dir MNIST_FOLDER --trainer.max_steps 500
  bpgen fit --rule rflo --seeds 8                           eight networks at once
  bpgen fit --config liu2022_three_factor --out runs        a shipped config, or the path of a YAML file
  bpgen fit --resume runs/digits-rflo-seed3                 continue an interrupted run, bit for bit

choosing the parts (their own options follow below, for the parts chosen now):
  --rule NAME         learning rule, see `bpgen rules` (default: rflo); FILE.py:Class for a first try of yours
  --task NAME         task, see `bpgen tasks` (default: digits)
  --neuron NAME       neuron model: {neurons} (default: leaky)
  --config NAME|FILE  take options from a config; the command line wins; may be given several times
                      {configs}
  --print_config      print the resolved config and stop
  --seeds N           train N networks, of the seeds SEED, SEED+1, ..., each in a folder of its own: at once where that
                      is possible and faster, which it says
  --dry_run           say what would be done and how long it would take, from its first steps, and stop
  --resume RUN        continue the run in this folder; takes no other options but
  --set KEY=VALUE     what is to be another from here on, and is recorded: optimizer.lr, schedule.*, trainer.max_steps,
                      max_epochs, patience, clip. More steps let a finished run go on. May be given several times
  -h, --help          this text

exit codes: 0 finished, 2 bad input or a file that cannot be written, 3 diverged (0 for a W&B agent, to which that is a
result), 130 interrupted.
"""


def run(argv: list[str]) -> int:
    """Run the command."""
    argv = [joined_by_underscores(token) for token in argv]
    if any(token == "--resume" or token.startswith("--resume=") for token in argv):  # noqa: S105  (of a command line)
        return _resume(argv)
    help_only, config_only, dry = [_takes(argv, flags) for flags in (("-h", "--help"), ("--print_config",), (DRY,))]
    n_seeds = _n_seeds(argv)
    asked = given(argv)  # misspelt names are refused before anything is imported
    if not help_only and not config_only:
        print(f"{asked.chosen['rule']} on {asked.chosen['task']}: loading torch and Lightning", flush=True)
    from bpgen.cli.options import make_parser, resolve, suited

    if help_only:
        names = f"{INDENT}shipped: {', '.join(configs())}"
        shipped = textwrap.fill(names, WIDTH, subsequent_indent=INDENT)
        print(MANUAL.format(configs=shipped.strip(), neurons=", ".join(plugins("neuron"))))
        print(make_parser(asked.chosen).format_help().split("\n\n", 2)[-1], end="")
        return 0
    config = resolve(asked)
    if config_only:
        print(config.yaml(), end="")
        return 0
    suits = [f"{key} {value}" for key, value in suited(asked).items()]
    if suits:
        print(f"{config.rule.label} runs at {', '.join(suits)}, which suit it; your own options decide otherwise")
    if dry:
        from bpgen.run.time_left import dry_run

        if n_seeds is not None:
            print(f"of the first of {n_seeds} seeds, alone:")
        dry_run(config, print)
        return 0
    from bpgen.cli.ending import report, report_seeds
    from bpgen.run.fit import fit
    from bpgen.run.screen import at_a_terminal

    if n_seeds is None:
        code = report(fit(config, terminal=at_a_terminal()))
    else:
        from bpgen.run.together import fit_seeds

        seeds = range(config.seed, config.seed + n_seeds)
        code = report_seeds(fit_seeds(config, seeds, terminal=at_a_terminal()))
    return 0 if code == DIVERGED and in_sweep() else code  # a result, and an agent gives up after three failures


def _takes(argv: list[str], flags: tuple[str, ...]) -> bool:
    """Whether a flag is given, which is then taken out."""
    found = any(token in flags for token in argv)
    argv[:] = [token for token in argv if token not in flags]
    return found


def _n_seeds(argv: list[str]) -> int | None:
    """The number in `--seeds N`, which is then taken out; None without it."""
    tokens = [part for token in argv for part in (token.split("=", 1) if token.startswith("--seeds=") else [token])]
    if "--seeds" not in tokens:
        return None
    place = tokens.index("--seeds")
    number = "".join(tokens[place + 1 : place + 2])
    require(
        number.isdecimal() and int(number) >= 1 and tokens.count("--seeds") == 1,
        f"--seeds needs a number of seeds, e.g. --seeds 8 --seed 0 for the seeds 0 to 7, got {number!r}.",
    )
    argv[:] = tokens[:place] + tokens[place + 2 :]
    return int(number)


def _resume(argv: list[str]) -> int:
    """`--resume RUN [--set KEY=VALUE ...]`."""
    tokens = [part for token in argv for part in (token.split("=", 1) if token.startswith("--") else [token])]
    pairs = list(zip(tokens[::2], tokens[1::2], strict=False))
    flags = [flag for flag, _ in pairs]
    require(
        len(tokens) == 2 * len(pairs)
        and all(value for _, value in pairs)
        and flags.count("--resume") == 1
        and set(flags) <= {"--resume", "--set"},
        "--resume needs the folder of a run and takes no other options but --set KEY=VALUE: a continued run keeps its "
        "own config.",
    )
    from bpgen.cli.ending import report
    from bpgen.run.files import read_value
    from bpgen.run.resume import resume
    from bpgen.run.screen import at_a_terminal

    changes = {}
    for text in (value for flag, value in pairs if flag == "--set"):
        key, equals, value = text.partition("=")
        require(bool(equals), f"what is to change is written --set KEY=VALUE, got {text!r}.")
        changes[key.replace("-", "_")] = read_value(value)
    return report(resume(dict(pairs[::-1])["--resume"], terminal=at_a_terminal(), changes=changes))
