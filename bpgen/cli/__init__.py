"""The command line. This module imports the standard library only, so that help and listings answer at once."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module

from bpgen import __version__, threads
from bpgen.errors import NO_MEMORY, BpgenError, out_of_memory, unknown

COMMANDS = {
    "fit": "train a network with a learning rule and measure sharpness, generalization gap and alignment",
    "ls": "list runs and studies with their status and last numbers, or write them into one table",
    "activity": "write what the neurons of a run do on a split into a file, with what is known of each trial",
    "sharpness": "measure the curvature of the networks that a run saved",
    "stability": "measure how stable a run's rule was around the networks it saved",
    "rank": "measure how far training moved a run's weights, and along how many directions",
    "similarity": "measure how alike a run's activity is to another run's, or to recorded neurons",
    "rules": "list the installed learning rules, their traits, or all about one",
    "check": "hold a rule, a neuron or a task to its contract and its claims: the conformance suite",
    "new": "write a package with a rule, task, neuron or measurement of your own, ready to install",
    "tasks": "list the installed tasks",
    "plugins": "list every installed part: rules, tasks, neurons, measurements, launchers, papers",
    "study": "run a plan of many runs: rules x seeds x options, tuned, continued, collected into one table",
    "explain": "rank measures of a study's saved networks by how well they explain the gap: sharpness or another",
    "stress": "put a study's saved networks to noise and shifts of every size: robustness, generalization",
    "compare": "compare learning rules over several seeds on embedded data",
    "plot": "draw existing runs together in one figure",
    "report": "write one page about runs and studies: verdicts, charts, runs, methods, commands",
    "dashboard": "make a workspace or a report of W&B's for a study or a project",
    "reproduce": "check the claims of a paper, each with its figure and a verdict from the data",
    "completion": "print a script that lets your shell complete commands, options and names",
    "bench": "measure the speed of the rules against their peers and their floors",
}
_ALIASES = {"new-rule": ["new", "rule"], "--print_completion": ["completion"], "--print-completion": ["completion"]}
_LEFT = "all files so far are whole; the same command starts again, a study or a run with a checkpoint goes on"
HELP = f"""\
bpgen {__version__}: how brain-like learning rules shape the solutions that recurrent networks find.

usage: bpgen COMMAND [options]

commands:
{os.linesep.join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

first steps:
  bpgen fit --rule rflo                 a run on embedded data: seconds, no download, no account
  bpgen fit --rule bptt --seed 1        the same network and batches under another rule need only the same seed
  bpgen compare --rules bptt,rflo       two rules, five seeds, the same weights and batches: gap and sharpness
  bpgen fit --rule rflo --help          every option of the run, the rule's own included

options:
  -h, --help     this text; `bpgen COMMAND --help` for a command
  --version      the version
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 a check failed, 2 bad input, 3 diverged, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except BpgenError as error:
        print(f"bpgen: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output is gone, e.g. `bpgen rules | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"interrupted: {_LEFT}", file=sys.stderr)
        return 130
    except BaseException as error:
        if out_of_memory(error):
            print(f"bpgen: error: {NO_MEMORY}", file=sys.stderr)
            return 2
        if isinstance(error, Exception) or _of_a_parser(error):
            raise
        print(f"bpgen: error: a part that was loaded ended the program: {_raised(error)}", file=sys.stderr)
        return 2


def _of_a_parser(error: BaseException) -> bool:
    """Whether it is argparse that exits, after help or a bad option."""
    frames = traceback.extract_tb(error.__traceback__)  # W&B puts a function of its own around sys.exit
    return any(frame.name == "exit" and "argparse" in os.path.basename(frame.filename) for frame in frames)


def _raised(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno}, in {last.name})"


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] in ("--version", "-V"):
        print(f"bpgen {__version__}")
        return 0
    command, *rest = [*_ALIASES.get(argv[0], argv[:1]), *argv[1:]]
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS, "See `bpgen --help`.")
    threads.prepare()  # before anything imports torch
    result: int = import_module(f"bpgen.cli.{command.replace('-', '_')}").run(rest)
    return result
