"""The table of parts: six kinds behind doors of one form, a stranger's part like a built-in one."""

import json
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.registry import KINDS, find, plugins

NEURON = '''"""A stranger's neuron."""
from bpgen.neurons import Leaky
class Mine(Leaky):
    """Leaky by another name."""
'''
BASES = {kind: entry.base for kind, entry in KINDS.items()}


def test_every_built_in_part_comes_through_its_door():
    assert [kind.group.removeprefix("bpgen.") for kind in KINDS.values()] == [f"{name}s" for name in KINDS]
    assert set(plugins("neuron")) == {"leaky", "lif", "alif", "gru", "lstm"}
    assert set(plugins("measurement")) == {"gap", "sharpness", "alignment", "stability", "spectrum", "preconditioned"}
    for kind in KINDS:
        for plugin in plugins(kind).values():
            assert isinstance(plugin.load(), type), plugin.name


@pytest.mark.parametrize("kind", BASES)
def test_a_class_of_another_kind_is_refused(kind, install):
    install("other", {"other": "other_part:X"}, KINDS[kind].group, other_part="class X: pass")
    base = BASES[kind].replace(":", ".")
    with pytest.raises(BpgenError, match=f"{kind} 'other' from other 1.2 is X, which is not a {re.escape(base)}"):
        find(kind, "other").load()


@pytest.mark.parametrize("announced", ["my-rule3", "my_rule3"])
@pytest.mark.parametrize("asked", ["my-rule3", "my_rule3"])
def test_a_hyphen_is_an_underscore_on_both_sides(announced, asked, install):
    install("hyphens", {announced: "mine_neuron:Mine"}, "bpgen.neurons", mine_neuron=NEURON)
    assert find("neuron", asked).name == "my_rule3"
    assert find("neuron", asked).load().__name__ == "Mine"


def test_a_clash_names_every_owner_and_harms_no_other(install):
    install("first", {"my-cell": "mine_neuron:Mine"}, "bpgen.neurons", mine_neuron=NEURON)
    install("second", {"my_cell": "mine_neuron:Mine"}, "bpgen.neurons")
    assert plugins("neuron")["my_cell"].package == "first 1.2 and second 1.2"
    with pytest.raises(BpgenError, match=r"'my_cell' is claimed by first 1.2 and second 1.2: uninstall all but one"):
        find("neuron", "my-cell").load()
    assert find("neuron", "leaky").load()


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("spelt", [("my-part", "my_part"), ("my_part", "my-part"), ("my-part", "my-part")])
def test_a_clash_is_named_in_every_kind(kind, spelt, install):
    for package, name in zip(("first", "second"), spelt, strict=True):
        install(package, {name: "mine_part:X"}, KINDS[kind].group, mine_part="class X: pass")
    assert plugins(kind)["my_part"].package == "first 1.2 and second 1.2"
    for asked in ("my-part", "my_part"):
        with pytest.raises(BpgenError, match=r"'my_part' is claimed by first 1.2 and second 1.2"):
            find(kind, asked).load()


@pytest.mark.parametrize("source", ["import sys; sys.exit(0)", "raise BaseException('gone')", "raise GeneratorExit"])
def test_a_package_that_exits_when_it_is_imported_has_failed_itself(source, install, capsys):
    install("evil", {"evil": "evil_part:X"}, evil_part=source)
    with pytest.raises(BpgenError, match=r"'evil' from evil 1.2 is broken: (System|Base|Generator)Ex"):
        find("rule", "evil").load()
    assert main(["fit", "--rule", "evil"]) == 2
    assert main(["rules", "--traits"]) == 0
    captured = capsys.readouterr()
    assert "rule 'evil' of evil 1.2 is left out" in captured.err
    assert "\nrflo " in captured.out


def test_ctrl_c_during_an_import_is_the_users(install):
    install("slow", {"slow": "slow_part:X"}, slow_part="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        find("rule", "slow").load()
    assert main(["fit", "--rule", "slow"]) == 130


HANGING = {
    "waits": "import time\ntime.sleep(1000)",
    "turns": "while True: pass",
    "catches all": """
import time
for _ in range(3):
    try:
        time.sleep(1000)
    except Exception:
        pass
""",
    "imports what waits": "import waiting_part",
}


@pytest.mark.parametrize("source", HANGING.values(), ids=HANGING)
def test_an_import_that_never_ends_is_named(source, install, monkeypatch, capsys):
    monkeypatch.setenv("BPGEN_IMPORT_SECONDS", "0.3")
    install("evil", {"evil": "evil_part:X"}, evil_part=source, waiting_part=HANGING["waits"])
    for argv in (["fit", "--rule", "evil"], ["check", "evil"], ["rules", "evil"]):
        assert main(argv) == 2, argv
        said = capsys.readouterr().err
        assert "rule 'evil' from evil 1.2 is broken: ImportTimeout: its import had not ended after 0.3 s, line" in said
        assert "BPGEN_IMPORT_SECONDS=SECONDS allows it more. Repair or uninstall that package" in said
    assert main(["rules", "--traits"]) == 0  # the others still work
    assert "rule 'evil' of evil 1.2 is left out" in capsys.readouterr().err
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_no_limit_where_it_is_switched_off_or_cannot_be(install, monkeypatch, capsys):
    monkeypatch.setenv("BPGEN_IMPORT_SECONDS", "0.01")
    install("slow", {"slow": "slow_part:Mine"}, "bpgen.neurons", slow_part="import time\ntime.sleep(0.1)\n" + NEURON)
    with ThreadPoolExecutor(1) as pool:  # an alarm is for the main thread
        assert pool.submit(find("neuron", "slow").load).result().__name__ == "Mine"
    for bad in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("BPGEN_IMPORT_SECONDS", bad)
        with pytest.raises(BpgenError, match=f"must be a number of seconds, 0 for no limit, got '{bad}'"):
            find("neuron", "slow").load()
    monkeypatch.setenv("BPGEN_IMPORT_SECONDS", "0")
    monkeypatch.delitem(sys.modules, "slow_part")
    assert find("neuron", "slow").load().__name__ == "Mine"


def test_plugins_lists_what_is_installed_with_its_fault(install, capsys):
    install("mine", {"mine": "mine_neuron:Mine"}, "bpgen.neurons", mine_neuron='print("hello")\n' + NEURON)
    install("evil", {"evil": "evil_part:X"}, "bpgen.measurements", evil_part="import sys; sys.exit(3)")
    assert main(["plugins", "--json"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)  # what a package prints at import is not part of it
    assert "hello" in captured.err
    assert all(set(row) == {"name", "group", "package", "version", "error"} for row in rows)
    (mine,) = [row for row in rows if row["name"] == "mine"]
    assert mine == {"name": "mine", "group": "bpgen.neurons", "package": "mine", "version": "1.2", "error": None}
    (evil,) = [row for row in rows if row["error"]]
    assert (evil["name"], evil["group"]) == ("evil", "bpgen.measurements")
    assert "SystemExit: 3" in evil["error"]
    assert len(rows) == sum(len(plugins(kind)) for kind in KINDS)
    assert main(["plugins"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines() if line.startswith("bpgen.")] == [
        kind.group for kind in KINDS.values()
    ]
    assert re.search(r"^  evil +evil +1.2 +measurement 'evil' .*SystemExit", table, re.MULTILINE)


def test_plugins_describes_a_part_of_any_kind(install, capsys):
    install("other", {"sharpness": "mine_neuron:Mine"}, "bpgen.neurons", mine_neuron=NEURON)
    assert main(["plugins", "sharpness"]) == 0
    text = capsys.readouterr().out
    for part in (
        "sharpness, from other 1.2 (mine_neuron.Mine)",  # two parts of a name, each of its kind
        "--sharpness.samples int (default: 512)",
        "sharpness/lambda_max            sharpness λ_max (loss per weight²)",
    ):
        assert part in text
    assert main(["plugins", "shrpness"]) == 2
    assert "Did you mean 'sharpness'" in capsys.readouterr().err


def test_a_part_in_a_file_for_a_first_try(tmp_path):
    file = tmp_path / "my-cell.py"
    file.write_text(NEURON + "\nclass Other: pass\n")
    first = find("neuron", f"{file}:Mine")
    assert first.load() is find("neuron", f"{file}:Mine").load()
    assert first.name == f"{file}:Mine"
    for name, message in {
        f"{file}:Theirs": "AttributeError.*Theirs",
        f"{file}:Other": "is Other, which is not a bpgen.neurons.Neuron",
        f"{tmp_path}/absent.py:X": "no file .*absent.py",
    }.items():
        with pytest.raises(BpgenError, match=message):
            find("neuron", name).load()
