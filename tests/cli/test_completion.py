"""`bpgen completion`: what a shell offers after Tab, as bash itself answers."""

import subprocess

import pytest

from bpgen.cli import COMMANDS, main
from bpgen.cli.completion import whole_parser
from bpgen.registry import plugins


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    import contextlib
    import io

    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        assert main(["--print_completion", "bash"]) == 0
    file = tmp_path_factory.mktemp("completion") / "bpgen.bash"
    file.write_text(heard.getvalue())
    return file


def offered(script, *words):
    """What bash offers for the last word."""
    typed = " ".join(f"'{word}'" for word in words)
    ask = f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _shtab_bpgen; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert not done.stderr
    return set(done.stdout.split())


def test_bash_offers_commands_options_and_names(script):
    assert offered(script, "bpgen", "") >= set(COMMANDS)
    assert offered(script, "bpgen", "f") == {"fit"}
    assert offered(script, "bpgen", "fit", "--rule", "rf") == {"rflo", "rflo_online"}
    assert offered(script, "bpgen", "fit", "--optimizer.l") == {"--optimizer.lr", "--optimizer.lr_scale"}
    assert offered(script, "bpgen", "fit", "--neuron.leak", "") == {"potential", "rate", "inside"}
    assert "--rule.window" in offered(script, "bpgen", "fit", "--rule", "tbptt", "--rule.")
    assert offered(script, "bpgen", "rules", "three") == {"three_factor"}
    assert "--step" in offered(script, "bpgen", "sharpness", "--st")
    assert "liu2022_quick" in offered(script, "bpgen", "study", "liu")
    assert offered(script, "bpgen", "new", "ta") == {"task"}


def test_every_option_of_a_run_is_offered(script):
    from bpgen.cli.options import _option_names, make_parser

    known = _option_names(make_parser({"rule": "rflo", "task": "digits", "neuron": "leaky"}))
    there = {option for option in offered(script, "bpgen", "fit", "--") if "+" not in option}
    assert there >= {f"--{name}" for name in known if "+" not in name}


def test_commands_are_all_there_in_zsh_too(capsys):
    assert main(["completion", "zsh"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#compdef bpgen")
    assert all(f'"{command}:' in text or f"{command})" in text for command in COMMANDS)
    assert all(name in text for name in plugins("rule"))


def test_no_command_runs_when_it_is_asked_for_its_parser(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole_parser()
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
