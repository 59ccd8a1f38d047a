"""What tests of several rooms use."""

import sys

import pytest


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
