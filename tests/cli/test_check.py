"""`bpgen check`: a report that names the first mistake once, and says last and loudly what it could not check."""

import json

import pytest

from bpgen.cli import main
from bpgen.cli.new import package
from bpgen.conformance import plan
from tests.rules import mutants


def out(capsys, *argv, code=0):
    assert main(list(argv)) == code
    captured = capsys.readouterr()
    return captured.err if code == 2 else captured.out


def test_a_report_names_every_check_and_counts(capsys):
    text = out(capsys, "check", "three-factor")
    for check in plan("three_factor"):
        assert check.name in text
    assert "three_factor: " in text
    assert " 0 failed" in text
    assert "its traits say exact_when='W_rec = 0'" in text


def test_a_failure_is_reported_and_is_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr("bpgen.conformance.plan", lambda name, **options: plan(mutants.SignOfTheLeak))
    text = out(capsys, "check", "mine", code=1)
    assert "FAIL      the leak carries credit back with the right factor and sign" in text
    assert "3 failed" in text
    assert "Begin with the first failure" in text
    report = json.loads(out(capsys, "check", "mine", "--json", code=1))
    assert report["part"] == "SignOfTheLeak"
    assert {row["status"] for row in report["checks"]} == {"pass", "fail", "skipped"}
    assert all(row["why"] for row in report["checks"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nope"], "unknown rule, neuron or task 'nope'"),
        (["rflow"], "Did you mean 'rflo'"),
        (["neuron:leeky"], "unknown neuron 'leeky'. Did you mean 'leaky'"),
        (["--kind", "task", "rflo"], "unknown task 'rflo'"),
        (["measurement:gap"], "unknown kind of part to check 'measurement'"),
        ([], "required"),
        (["tbptt", "window"], "OPTION=VALUE"),
        (["tbptt", "windw=3"], "Did you mean 'window'"),
        (["tbptt", "window=0"], "must be a positive number"),
        (["leaky", "alpha=2"], "neuron.alpha must be in"),
        (["leaky", "alfa=2"], "Did you mean 'alpha'"),
        (["digits", "held_out=nobody"], "held_out"),
        (["missing.py:Rule"], "no file"),
    ],
)
def test_bad_input_is_exit_code_2(argv, message, capsys):
    assert message in out(capsys, "check", *argv, code=2)


def test_options_reach_the_part(capsys):
    assert " 0 failed" in out(capsys, "check", "tbptt", "style=sliding", "window=2")
    assert "digits: " in out(capsys, "check", "digits", "held_out=writers")


def test_the_kind_is_found_from_the_name_or_asked_for(capsys, install):
    assert "each neuron follows itself alone" in out(capsys, "check", "gru")
    assert "two of it hold the same data" in out(capsys, "check", "--kind", "task", "digits")
    source = package("neuron", "other-name")["other_name.py"]
    install("strange", {"rflo": "other_name:OtherName"}, "bpgen.neurons", other_name=source)
    assert "say rule:rflo or neuron:rflo" in out(capsys, "check", "rflo", code=2)
    assert "each neuron follows itself alone" in out(capsys, "check", "neuron:rflo")


def test_an_error_of_the_rule_is_said_once_with_its_place(capsys, tmp_path):
    source = package("rule", "my-rule")["my_rule.py"].replace("return propagate(", "return propagated(")
    (tmp_path / "draft.py").write_text(source)
    text = out(capsys, "check", f"{tmp_path / 'draft.py'}:MyRule", code=1)
    line = source[: source.index("propagated")].count("\n") + 1
    assert " ".join(text.split()).count(f"draft.py, line {line}, in credit") == 1
    times = text.count("the same error")
    assert times > 20
    assert f"{times} checks failed with the same error: NameError: name 'propagated' is not defined" in text
    assert "Begin with the first failure" not in text  # there is but one


def test_the_same_slip_in_many_shapes_is_one_error(capsys, tmp_path):
    source = package("rule", "my-rule")["my_rule.py"]
    line = '        return propagate(trajectory, error @ self.feedback(trajectory.params["W_out"]))'
    (tmp_path / "draft.py").write_text(source.replace(line, f"{line}.currents.squeeze(2)"))
    words = " ".join(out(capsys, "check", f"{tmp_path / 'draft.py'}:MyRule", code=1).split())
    assert "draft.py, line" in words
    times = words.count("the same error")
    assert f"{times} checks failed with the same error: MyRule: `credit` must be [L,B,K,N]" in words


# Three wrong rules, written by hand from the templates

ALPHA = "network.neuron.alpha"
CREDIT = """
        q = error @ self.feedback(trajectory.params["W_out"])
        T, alpha = trajectory.n_steps, {alpha}
        q = torch.cat([q.new_zeros(T - len(q), *q.shape[1:]), q])
        told = trajectory.local.D.pull(q.unsqueeze(2), slice(1, T + 1)).squeeze(2)
        later, c = torch.zeros_like(told[0]), []
        for t in reversed(range(T)):
            later = told[t] + {kept} * later
            c.append(alpha * later)
        c = torch.stack(c[::-1]).unsqueeze(2)
        return {credit}
"""
MISTAKES = {
    "eligibility shifted by one step": {
        "credit": {"credit": "torch.cat([c[1:], torch.zeros_like(c[:1])])"},
        "online": {"trace": 'state["trace"]'},
        "named by": ("pre- and postsynaptic factors are of the right steps", "factors are of the wrong steps"),
    },
    "missing (1-alpha)": {
        "credit": {"kept": "1"},
        "online": {"kept": "1"},
        "named by": ("the leak carries credit back with the right factor and sign", "seems to keep 1 of itself"),
    },
    "hard-coded alpha": {
        "credit": {"alpha": "0.3"},
        "online": {"alpha": "0.3"},
        "named by": ("the credit of a current has the right size", "as if α = 0.37 were 0.3"),
    },
}


def by_hand(style, when, mistake):
    """The text of the rule that somebody made of a template."""
    text = package("rule", "by-hand", style)["by_hand.py"]
    changed = MISTAKES[mistake][style] if mistake else {}
    if style == "credit":
        pieces = {"alpha": f"trajectory.{ALPHA}", "kept": "(1 - alpha)", "credit": "c", **changed}
        line = '        return propagate(trajectory, error @ self.feedback(trajectory.params["W_out"]))\n'
        new = [(line, CREDIT.format(**pieces)), ("from torch import Tensor", "import torch\nfrom torch import Tensor")]
        old = 'exact_when="W_rec = 0"'
    else:
        pieces = {"alpha": f"moment.{ALPHA}", "kept": "(1 - alpha)", "trace": "trace", **changed}
        line = 'vector = moment.own(state["vector"]) + moment.drive(direct)\n'
        vector = f'alpha = {pieces["alpha"]}\n        vector = {pieces["kept"]} * state["vector"] + alpha * direct\n'
        use = 'state = {"vector": vector, "trace": trace}\n'
        new = [(line, vector), (use, f"used = {pieces['trace']}\n        {use}"), ("q, trace)", "q, used)")]
        old = 'exact_when="W_rec = 0 with symmetric feedback"'
    for one, other in (*new, (old, f'neurons=("Leaky",), exact_when="{when}"')):
        assert one in text, one
        text = text.replace(one, other)
    return text


def report(capsys, tmp_path, text):
    (tmp_path / "by_hand.py").write_text(text)
    code = main(["check", f"{tmp_path / 'by_hand.py'}:ByHand"])
    return code, capsys.readouterr().out


styles = pytest.mark.parametrize("style", ["credit", "online"])


@styles
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("when", ["W_rec = 0", "W_rec = 0 with symmetric feedback"])
def test_the_first_failure_names_the_mistake(style, mistake, when, capsys, tmp_path):
    if style == "credit" and when.endswith("feedback"):
        pytest.skip("it has no feedback weights of its own")
    code, text = report(capsys, tmp_path, by_hand(style, when, mistake))
    check, message = MISTAKES[mistake]["named by"]
    assert code == 1
    first = text[text.index("FAIL") :].splitlines()
    assert first[0] == f"FAIL      {check}"
    assert message in " ".join(text.split())


@styles
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_rule_that_claims_nothing_is_never_green_without_a_warning(style, mistake, capsys, tmp_path):
    code, text = report(capsys, tmp_path, by_hand(style, "never", mistake))
    words = " ".join(text.split())
    check, message = MISTAKES[mistake]["named by"]
    assert code == 0
    assert words.index("NOT CHECKED: WHETHER THE GRADIENT IS RIGHT") > words.index("0 failed")
    assert "traits.exact_when is 'never'" in words
    assert f"'{check}' would fail first: " in words
    assert message in words


@styles
@pytest.mark.parametrize("when", ["never", "T = 1"])
def test_what_a_right_rule_leaves_unclaimed_is_found(style, when, capsys, tmp_path):
    text = by_hand(style, when + " with symmetric feedback" * (style == "online" and when != "never"), "")
    refuse = "    def bind(self, network, seed=0):\n        super().bind(network, seed)\n"
    refuse += '        require(network.neuron.leak == "potential", "potential")\n        return self\n\n    def '
    text = text.replace("    def ", refuse, 1).replace("from bpgen.rules import ", "from bpgen.rules import require, ")
    code, text = report(capsys, tmp_path, text)
    words = " ".join(text.split())
    assert code == 0
    if when == "never":
        claim = "W_rec = 0 with symmetric feedback" if style == "online" else "W_rec = 0"
        assert f'It equals BPTT at W_rec = 0: declare exact_when="{claim}".' in words
        assert ("equals that of rflo" if style == "online" else "recurrent gradient") in words
        assert "would fail first" not in words
        assert "NOT CHECKED: WHETHER THE GRADIENT IS RIGHT" in words
    else:
        assert "CHECKED IN PART ONLY: at T = 1 there is nothing to remember." in words


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("hebbian", "NOT CHECKED: whether its updates are right."),
        pytest.param(
            *("mdgl", "CHECKED IN PART ONLY: its credit crosses recurrent weights (recurrence='sparse')"),
            marks=pytest.mark.slow,
        ),
        ("noisy_bptt", "CHECKED IN PART ONLY: it was compared with BPTT under scale=0"),
        ("three_factor", ""),
        *(pytest.param(rule, "", marks=pytest.mark.slow) for rule in ("bptt", "weight_perturbation")),
    ],
)
def test_what_was_not_checked_of_the_rules_here(rule, said, capsys):
    words = " ".join(out(capsys, "check", rule).split())
    assert (said in words) if said else ("CHECKED" not in words)
