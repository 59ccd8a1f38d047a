"""Sign feedback keeps the contract of bpgen and what its traits claim: one small test per property."""

import pytest

from bpgen.conformance import checks


@pytest.mark.parametrize("check", checks("sign_feedback"), ids=str)
def test_conformance(check):
    check()
