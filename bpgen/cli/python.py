"""`bpgen.fit`: what the command does, from Python, so that many settings cost one import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bpgen.errors import BpgenError

if TYPE_CHECKING:
    from bpgen.run.loaded import LoadedRun


def fit(*, quiet: bool = False, draw: bool = True, **options: Any) -> LoadedRun:
    """Train and measure one network as `bpgen fit` does, and return the run with its last network.

    bpgen.fit(rule="rflo", seed=3, network={"n_rec": 64}, optimizer={"lr": 0.1}, out="runs")
    bpgen.fit(config="liu2022_bptt", rule={"name": "rflo", "scale": 0.5})

    Args:
        quiet: print nothing; else a line per evaluation, in a Jupyter notebook a bar.
        draw: draw the figures of the run.
        **options: the groups and options of a config: rule, task and neuron by name, or a mapping with `name` and
            options; other groups as mappings; seed, out, wandb, threads. `config` is a shipped config or the path of
            one, or a list of them, which the options win over.

    Returns:
        The run: `.network`, `.weights`, `.metrics`, `.status` ("finished" or "diverged"), `.folder`.

    Raises:
        BpgenError: bad input, or the rule failed.
        KeyboardInterrupt: it was stopped; the message says how to go on.
    """
    from bpgen.cli.options import resolve
    from bpgen.run.fit import fit as fit_config
    from bpgen.run.fit import say_at_once
    from bpgen.run.replay import load_run
    from bpgen.run.screen import in_notebook

    say = (lambda _: None) if quiet else say_at_once
    ending = fit_config(resolve(_argv(options)), say, terminal=in_notebook() and not quiet, draw=draw)
    if ending.status == "interrupted":
        raise KeyboardInterrupt(ending.message)
    if ending.status == "failed":
        raise BpgenError(ending.message)
    return load_run(ending.folder.path)


def _argv(options: Mapping[str, Any]) -> list[str]:
    """The command line that says the same: Python's and the shell's bad input are met by the same checks."""
    from bpgen.run.files import as_text

    argv: list[str] = []
    for key, value in options.items():
        if key == "config":
            for config in [value] if isinstance(value, str) else value:
                argv += ["--config", str(config)]
        elif isinstance(value, Mapping):
            argv += [f"--{key}={value['name']}"] if "name" in value else []
            argv += [f"--{key}.{option}={as_text(v)}" for option, v in value.items() if option != "name"]
        else:
            argv.append(f"--{key}={as_text(value)}")
    return argv
