"""The online benchmark: its counter of bytes is right, online rules are flat in time, and a leak would show."""

import json
import math

import pytest
import torch

from bpgen import load_rule
from bpgen.bench import online
from bpgen.cli import main
from bpgen.registry import plugins


def test_the_peak_is_counted_to_the_byte():
    kept = []

    def call():
        a = torch.ones(1000)  # 4,000 bytes
        b = a + 1  # 8,000 alive
        del a
        b.view(10, 100).add_(1)  # a view and an in-place change are no new memory
        kept.append(torch.cat([b, b]))  # 12,000 alive: the peak
        return b.sum()  # and 4 bytes more

    sparse = torch.eye(3).to_sparse()  # has no storage to count
    before = online.living()
    assert sparse.is_sparse
    assert online.peak_of(call, before) == 12_004
    assert online.living() - before == 8_000
    assert online.peak_of(lambda: None, before) == 8_000  # what the call before left behind


def test_every_built_in_online_rule_is_measured():
    builtin = {n for n, p in plugins("rule").items() if p.class_path.startswith("bpgen_rules")}
    assert set(online.ORDERS) == {name for name in builtin if load_rule(name).traits.online}


@pytest.mark.parametrize("rule", online.ORDERS)
def test_memory_of_an_online_rule_is_flat(rule):
    found = online.peaks(rule, (20, 200), n_rec=8)
    assert found[0] > 1_000
    assert max(found) / min(found) < 1.05


def test_memory_that_grows_is_seen():
    found = [online.peak_of_bptt(T, n_rec=8) for T in (20, 200)]
    assert found[1] > 5 * found[0]
    leaky = load_rule("kernl")
    step, hoard = leaky.step, []
    leaky.at_once = False
    leaky.step = lambda state, moment: hoard.append(moment.h.clone()) or step(state, moment)
    found = online.peaks(leaky, (20, 200), n_rec=8)
    assert found[1] - found[0] == 180 * 8 * 4


def test_rows_and_table(monkeypatch, capsys):
    rows = online.run(("rtrl", "snap"), times=(20, 40), sizes=(8, 16), rounds=1)
    assert [r.rule for r in rows] == ["rtrl", "snap", "bptt, whole sequence"]
    assert [r.flat for r in rows] == [True, True, False]
    assert rows[0].exponents == [pytest.approx(math.log2(rows[0].ms[1] / rows[0].ms[0]))]
    text = online.table(rows, (20, 40), (8, 16))
    assert "2 of 2 online rules" in text
    assert "N^4" in text
    monkeypatch.setattr(online, "run", lambda rounds: rows)
    assert main(["bench", "--online", "--json"]) == 0
    assert [row["rule"] for row in json.loads(capsys.readouterr().out)] == [r.rule for r in rows]
