"""Names of modules: each can be reached from `bpgen` in a fresh process, and none is hidden by a function."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import bpgen

MODULES = [m.name for m in pkgutil.walk_packages(bpgen.__path__, "bpgen.") if not m.name.endswith("__main__")]


def in_a_fresh_process(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("use", ["curvature.module_sharpness", "errors.BpgenError", "rules.Rule", "problem.Problem"])
def test_a_module_is_there_without_an_import_of_its_own(use):
    assert in_a_fresh_process(f"import bpgen; print(bpgen.{use}.__name__)") == use.split(".")[1]


def test_importing_the_package_loads_nothing():
    code = "import sys, bpgen; print(sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    assert in_a_fresh_process(code) == "[]"


def test_a_name_that_does_not_exist_is_said():
    with pytest.raises(AttributeError, match="no attribute 'curvatures'"):
        _ = bpgen.curvatures


@pytest.mark.parametrize("name", MODULES)
def test_no_function_hides_a_module(name):
    module, (parent, child) = importlib.import_module(name), name.rsplit(".", 1)
    assert getattr(importlib.import_module(parent), child) is module
