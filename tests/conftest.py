"""What tests of several rooms use."""

import random
import sys

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _the_same_numbers_in_every_run():
    """What draws from the global generators, as scipy's integration does, draws the same whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - it is the global one that libraries use
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """Runs draw nothing, which would be half of their time, but in tests marked `pictures`, which look at them."""
    fit = sys.modules.get("bpgen.run.fit")  # too slow to import for tests that train nothing
    if fit is not None and request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(fit, "draw_run", lambda folder, columns: None)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package as pip would: a module and its metadata, on the path of this test alone."""

    def install(package: str, parts: dict[str, str], group: str = "bpgen.rules", **modules: str) -> None:
        folder = tmp_path / package
        info = folder / f"{package}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        points = "\n".join(f"{name} = {value}" for name, value in parts.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(source)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])

    return install
