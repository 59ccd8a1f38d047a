"""A gradient that no machine could hold is refused before anything is allocated."""

import resource

import pytest
import torch

import bpgen
from bpgen import memory
from bpgen.cli import main
from bpgen.errors import BpgenError
from bpgen.losses import Loss
from bpgen.problem import Problem
from bpgen.registry import find
from bpgen.rules import load_rule
from bpgen.rules.memory import least_bytes, require_room


def problem(n_steps: int, batch: int, n_rec: int = 4) -> Problem:
    network = bpgen.Network(bpgen.neurons.Leaky(alpha=0.5), n_in=1, n_rec=n_rec, n_out=2)
    x = torch.zeros(1, 1, 1).expand(n_steps, batch, 1)  # of one number
    return Problem(network, network.params(), x, torch.zeros(1).long().expand(batch), Loss())


def test_rtrl_of_a_large_network_says_how_much_it_needs_and_what_to_take() -> None:
    big = problem(3, 256, n_rec=3000)
    with pytest.raises(BpgenError, match=r"order N³ .*B=256, T=3, N=3000\): at least 25,749 GiB, .*`snap`"):
        bpgen.gradients("rtrl", big.network, big.x, big.target)
    require_room(load_rule("snap"), big)
    require_room(load_rule("three_factor"), big)


def test_a_long_batch_is_refused_for_what_is_kept_over_time_only() -> None:
    long = problem(10**7, 10**6)
    for name in ("bptt", "three_factor", "readout_only"):
        with pytest.raises(BpgenError, match=r"order T N.*smaller batches"):
            require_room(load_rule(name), long)
    require_room(load_rule("eprop_online"), long)


@pytest.mark.parametrize(("rule", "numbers"), [("bptt", 7 * 5), ("rtrl", 5**3), ("snap", 0), ("rflo_online", 0)])
def test_the_bound_is_the_declared_order(rule: str, numbers: int) -> None:
    assert least_bytes(load_rule(rule), problem(7, 3, n_rec=5)) == 3 * numbers * 4


def test_a_network_too_large_is_refused_before_it_is_drawn(capsys, tmp_path) -> None:
    assert main(["fit", "--network.n_rec", "1000000", "--out", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "1,000,000 neurons need memory for their weights: at least 14,901 GiB, where" in said
    assert "Take a smaller --network.n_rec" in said
    assert not (tmp_path / "runs").exists()


def test_trials_too_many_are_refused_before_they_are_drawn() -> None:
    with pytest.raises(BpgenError, match=r"100,000,001,500 trials of \w+ need memory: at least .* GiB.*--task.n_train"):
        find("task", "perceptual_decision").make(n_train=10**11).split("train")


def test_weights_gradient_and_checkpoint_count(monkeypatch) -> None:
    small = problem(3, 2, n_rec=100)
    weights = sum(W.numel() for W in small.params.values()) * 4
    for there, enough in ((3 * weights, False), (3 * weights + 2 * 3 * 100 * 4, True)):
        monkeypatch.setattr(memory, "bytes_of", lambda device, there=there: there)
        if enough:
            require_room(load_rule("bptt"), small)
        else:
            with pytest.raises(BpgenError, match=r"BPTT needs memory of order T N .*B=2, T=3, N=100\): at least 0 GiB"):
                require_room(load_rule("bptt"), small)


def test_the_least_of_what_machine_container_and_process_allow_counts(monkeypatch, tmp_path) -> None:
    cpu = torch.device("cpu")
    whole = memory.bytes_of(cpu)
    assert 2**28 < whole < 2**45
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP", limit)
    for text, there in (("max\n", None), ("1000000\n", 1e6)):
        limit.write_text(text)
        assert memory.bytes_of(cpu) == there or (there is None and memory.bytes_of(cpu) >= whole)
    limit.unlink()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (5, 5))
    assert memory.bytes_of(cpu) == 5


EATER = """from bpgen.rules import OfflineRule, Traits
class Eats(OfflineRule):
    traits = Traits()
    def credit(self, trajectory, error):
        {act}
"""


@pytest.mark.parametrize("act", ["trajectory.x.new_empty(2**60)", "bytearray(2**62)"])
def test_memory_that_ends_in_the_middle_is_one_message(act, tmp_path, capsys) -> None:
    (tmp_path / "eats.py").write_text(EATER.format(act=act))
    run = ["fit", "--rule", f"{tmp_path}/eats.py:Eats", "--trainer.max_steps", "1", "--wandb", "off", "--threads", "1"]
    less = [f"--{name}=0" for name in ("sharpness.samples", "alignment.samples")]
    assert main([*run, *less, "--out", str(tmp_path / "runs")]) == 2
    assert "there is not enough memory for this. Take smaller batches" in capsys.readouterr().err
