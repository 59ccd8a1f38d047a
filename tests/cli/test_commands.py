"""The front door: help, version, listings; quick because they import nothing heavy."""

import subprocess
import sys

import pytest

import bpgen
from bpgen.cli import COMMANDS, main


def out(capsys, *argv, code=0):
    assert main(list(argv)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_help_names_every_command(capsys):
    text = out(capsys, "--help")
    assert all(f"  {name}" in text for name in COMMANDS)
    assert out(capsys) == text


def test_version(capsys):
    assert out(capsys, "--version") == f"bpgen {bpgen.__version__}\n"


def test_rules_and_tasks_are_listed_with_package_and_first_line(capsys):
    rules = out(capsys, "rules")
    for name in ("bptt", "tbptt", "three_factor", "eprop_online", "rflo", "readout_only"):
        assert f"\n{name} " in f"\n{rules}"
    assert f"bpgen {bpgen.__version__}" in rules
    assert "Random-feedback local online learning" in rules
    assert "digits" in out(capsys, "tasks")


def test_an_unknown_command(capsys):
    assert "Did you mean 'fit'?" in out(capsys, "fitt", code=2)
    assert "unrecognized arguments" in out(capsys, "rules", "--nope", code=2)


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["rules"], ["tasks"]])
def test_listings_import_nothing_heavy(argv):
    code = (
        "import sys; from bpgen.cli import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'lightning', 'numpy', 'wandb', 'bpgen_rules'} & set(sys.modules); assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_manual_of_fit_documents_the_chosen_rule(capsys):
    text = out(capsys, "fit", "--rule", "tbptt", "--help")
    assert "--rule.window" in text
    assert "number of steps k that credit may travel back" in text
    assert "--rule.scale" not in text
    assert "--rule.scale" in out(capsys, "fit", "--help")
    assert "typing." not in text
    assert "<class" not in text


@pytest.mark.parametrize("spelling", ["--max_products", "--max-products"])
def test_options_may_be_joined_by_hyphens_or_underscores(spelling):
    from bpgen.cli.sharpness import parser

    assert parser().parse_args(["run", spelling, "7"]).max_products == 7


def test_an_option_that_a_rule_cannot_take_is_bad_input(capsys):
    assert main(["check", "rflo", "scale=abc"]) == 2
    assert "scale must be a number, got 'abc'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "not_imported"),
    [
        (["fit", "--rule", "rfol"], 2, ("torch", "jsonargparse")),
        (["fit", "--task", "digit"], 2, ("torch", "jsonargparse")),
        (["fit", "--neuron", "leeky"], 2, ("torch", "jsonargparse")),
        (["fit", "--config", "none.yaml"], 2, ("torch", "jsonargparse")),
        (["fit", "--sharpnes.samples", "3"], 2, ("torch", "jsonargparse")),
        (["check", "rfol"], 2, ("torch",)),
        (["compare", "--rules", "bptt,rfol"], 2, ("torch",)),
        (["fit", "--help"], 0, ("lightning", "wandb", "matplotlib", "pandas")),
        (["fit", "--rule", "force", "--print_config"], 0, ("lightning", "wandb", "matplotlib", "pandas")),
    ],
)
def test_what_needs_nothing_heavy_imports_nothing_heavy(argv, code, not_imported):
    """A misspelt name is refused at once, and options are described without Lightning, which takes seconds."""
    program = f"import sys; from bpgen.cli import main; print(main({argv}), {{*sys.modules}} & {{*{not_imported}}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{code} set()"
