"""Whole commands are timed by what they spend: of a known one, and in ratios of known numbers."""

from __future__ import annotations

import sys

import pytest

from bpgen.bench import whole
from bpgen.bench.whole import Spent
from bpgen.errors import BpgenError


def test_what_a_command_spends_is_its_own():
    took = whole.spent([sys.executable, "-c", "import time; time.sleep(0.3); raise SystemExit(2)"], expected=2)
    assert 0.3 <= took.wall < 60  # since it began, not since the machine did
    assert took.cpu < took.wall - 0.2  # asleep
    at_work = "import time\nwhile time.process_time() < 0.3: pass"
    assert whole.spent([sys.executable, "-c", at_work]).cpu >= 0.27  # counted in hundredths, in two parts


def test_a_command_that_fails_is_not_timed():
    with pytest.raises(BpgenError, match=r"ended with 3, not 0: broken"):
        whole.spent([sys.executable, "-c", "import sys; print('broken', file=sys.stderr); sys.exit(3)"])


def test_a_variable_reaches_the_command():
    asked = "import os; raise SystemExit(int(os.environ['OMP_NUM_THREADS']))"
    whole.spent([sys.executable, "-c", asked], expected=5, environment={"OMP_NUM_THREADS": "5"})


def test_ratios_are_of_the_least_of_each_command():
    found = {
        "import": [Spent(2.0, 2.0), Spent(3.0, 3.0)],
        "misspelt": [Spent(0.6, 0.1), Spent(0.25, 0.1)],
        "help": [Spent(1.0, 1.0)],
        "fit": [Spent(9.0, 9.0, 1.0), Spent(10.0, 10.0, 8.0)],  # the second spends less that is not its own
        "alone": [Spent(9.0, 8.0)],
        "seeds": [Spent(30.0, 32.0)],
        "busy": [Spent(18.0, 10.0)],
    }
    rows = whole.ratios(found, 8)
    assert [row.ratio for row in rows] == pytest.approx([0.5, 0.5, 1.0, 2.0, 0.5, 30 / 72])
    assert [row.met for row in rows] == [True, False, True, True, False, None]
    assert all(row.case in whole.table(rows) for row in rows)
    assert "0.50  (not 0.40)" in whole.table(rows)
