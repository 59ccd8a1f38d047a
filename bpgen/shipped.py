"""The configs and plans that come with bpgen: in `configs/` of a checkout, inside the package of an installed one."""

from __future__ import annotations

from pathlib import Path

from bpgen.errors import require, unknown

_PACKAGE = Path(__file__).parent
_INSTALLED, _CHECKOUT = _PACKAGE / "configs", _PACKAGE.parent / "configs"
_FOLDER = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def configs() -> dict[str, Path]:
    """The configs of runs by name."""
    return _by_name(_FOLDER)


def plans() -> dict[str, Path]:
    """The plans of studies by name."""
    return _by_name(_FOLDER / "studies")


def find_plan(name: str) -> Path:
    """A plan by path, or by the name of a shipped one.

    Raises:
        BpgenError: there is none, with the nearest name that exists.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = plans()
    if name in shipped:
        return shipped[name]
    require(path.suffix not in (".yaml", ".yml"), f"there is no plan file {name}. Shipped: {', '.join(shipped)}.")
    require(not path.is_dir(), f"{name} is a folder: name the plan in it, e.g. {path / 'plan.yaml'}.")
    raise unknown("plan", name, shipped, "Or give the path of a YAML file.")


def _by_name(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
