"""What the tests of W&B share: a home, a server, and a run without an account."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from tests.tracking.bench import EPOCH, Bench, Run
from tests.tracking.stub import Stub


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def server() -> Iterator[Stub]:
    """A server that must never hear from an offline run."""
    with Stub() as stub:
        yield stub


@pytest.fixture(scope="module")
def offline(bench: Bench, server: Stub) -> Run:
    """What a user without an account gets; every way out of the machine leads to the server."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), server.url)
    return bench.fit("offline", *EPOCH, WANDB_BASE_URL=server.url, **proxies)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process as a user without any W&B configuration; W&B reads its environment only once."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_")) or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield tmp_path
    wandb.teardown()
