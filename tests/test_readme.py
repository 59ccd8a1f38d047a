"""The README's Python runs, and its rule is the one of the example plugin."""

import ast
import re
from pathlib import Path

import torch

from tests.faults.table import in_four_rows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_api_example_runs(capsys):
    torch.manual_seed(0)
    exec(BLOCKS[0], {})
    printed = capsys.readouterr().out
    cosine = float(printed.split("cosine with BPTT:")[1].split()[0])
    assert -1 < cosine < 0.99
    assert "sharpness: " in printed


def test_the_rule_in_the_readme_is_the_example_plugin():
    def body(source):
        tree = ast.parse(source)
        (cls,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        space = {}
        exec(compile(tree, "rule", "exec"), space)
        return space[cls.name]

    written, shipped = body(BLOCKS[1]), body((ROOT / "plugins/example/sign_feedback.py").read_text(encoding="utf-8"))
    import bpgen

    net = bpgen.Network(bpgen.neurons.Leaky(0.5), 3, 8, 4)
    x, y = torch.rand(6, 5, 3), torch.randint(4, (5,))
    first, second = (bpgen.gradients(rule(0.7), net, x, y).grads["W_rec"] for rule in (written, shipped))
    assert torch.equal(first, second)
    assert first.norm() > 0


def test_files_the_readme_names_exist():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / name).exists(), name


def test_the_faults_quoted_are_those_that_are_tried():
    lines = [line for line in README.splitlines() if line.startswith("| ")]
    first = lines.index(in_four_rows([])[0])
    for quoted, named in zip(lines[first + 1 :], in_four_rows([])[1:], strict=False):
        assert quoted.split("|")[1] == named.split("|")[1]
        assert quoted.split("|")[-2].strip() in ("0", "---")
