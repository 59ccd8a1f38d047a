"""`bpgen new`: a complete package with a part of your own, ready to be installed, tested and changed."""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import NamedTuple

from bpgen.cli.listing import Parser
from bpgen.errors import BpgenError, choice, require
from bpgen.registry import KINDS, KindName, plugins

STYLES = {
    "credit": "from output error to the credit of every input current, at once: `credit(trajectory, error)`. Shortest; "
    "bpgen runs the network and makes weight gradients. The example sends the error through the signs of W_out.",
    "online": "forward in time with a state that does not grow: `start(...)` and `step(state, moment)`, in which there "
    "is no future. The example is an eligibility trace with random feedback.",
    "gradient": "all of it by yourself: `estimate(problem, draws)`, for rules that are not "
    "credit, such as perturbation. The example perturbs the recurrent weights.",
}


class Kind(NamedTuple):
    """What a new part of a kind is called, what its example is, and how it is used once it is installed."""

    noun: str
    example: str
    use: tuple[str, ...]


PARTS: dict[KindName, Kind] = {
    "rule": Kind(
        "learning rule", "in one of three styles, see below", ("bpgen check {0} && pytest", "bpgen fit --rule {0}")
    ),
    "task": Kind(
        "task", "a cue held over a delay with a distractor", ("bpgen check {0} && pytest", "bpgen fit --task {0}")
    ),
    "neuron": Kind(
        "neuron", "a threshold-linear rate that adapts", ("bpgen check {0} && pytest", "bpgen fit --neuron {0}")
    ),
    "measurement": Kind(
        "measurement", "the dimension of the activity", ("pytest", "bpgen fit   # with the column {0}/dimension")
    ),
}
_TEMPLATES = files("bpgen.cli") / "templates"


def run(argv: list[str]) -> int:
    """Write the package into a new folder here, and say what to do with it."""
    examples = {name: part.example for name, part in PARTS.items()}
    parser = Parser(
        prog="bpgen new",
        description="Write a complete package with a part of your own into a new folder named after it: the part (a "
        "worked example that passes its tests as it is), a pyproject.toml that announces it, tests, README. It works "
        "in `bpgen fit` as soon as it is installed.",
        epilog=f"kinds, each with the example it begins as:\n{_listed(examples)}\n\n"
        f"three ways to write a rule:\n{_listed(STYLES)}",
    )
    parser.add_argument("kind", choices=PARTS, help="what it is")
    parser.add_argument("name", help="its name in lower case, e.g. my-rule, which is `--rule my_rule` then")
    parser.add_argument("--style", choices=STYLES, help="how a rule is written (default: credit)")
    options = parser.parse_args(argv)
    kind, folder = options.kind, Path(options.name)
    require(options.style is None or kind == "rule", f"--style is for rules; a {kind} is written in one way.")
    written = package(kind, options.name, options.style or "credit")
    require(not folder.exists(), f"{folder} exists already; nothing was written. Choose another name or place.")
    try:
        folder.mkdir()
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BpgenError(f"cannot write into {folder}: {error.strerror}.") from error
    print(f"{folder}: {', '.join(written)}\n\nnext:")
    print(f"  cd {folder} && pip install -e . --no-deps   # from then on it is in `bpgen plugins`")
    for command in PARTS[kind].use:
        print(f"  {command.format(options.name.replace('-', '_'))}")
    return 0


def package(kind: KindName, name: str, style: str = "credit") -> dict[str, str]:
    """The files of the package of a new part, by name.

    Args:
        kind: a key of `PARTS`.
        name: of the part, in lower case, words joined by hyphens or underscores.
        style: a key of `STYLES`, for a rule.

    Raises:
        BpgenError: an unknown kind, or a name that is malformed, or that something else has already.
    """
    choice("kind of part to write", kind, PARTS)
    module, slug = name.replace("-", "_"), name.replace("_", "-")
    words = slug.split("-")
    values = {
        "slug": slug,
        "module": module,
        "class": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "noun": PARTS[kind].noun,
        "group": KINDS[kind].group,
    }
    sources = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": f"{kind}.README.md.txt",
        f"{module}.py": f"rule.{style}.py.txt" if kind == "rule" else f"{kind}.py.txt",
        f"test_{module}.py": f"{kind}.test.py.txt",
    }
    texts = {file: (_TEMPLATES / source).read_text(encoding="utf-8") for file, source in sources.items()}
    _check_name(kind, name, values["class"], texts[f"{module}.py"])
    return {file: Template(text).substitute(values) for file, text in texts.items()}


def _check_name(kind: KindName, name: str, class_name: str, example: str) -> None:
    suggestion = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-0123456789")
    require(
        re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) is not None,
        f"a {kind}'s name is lower-case words joined by hyphens, got {name!r}."
        + (f" Try {suggestion!r}." if suggestion else ""),
    )
    module = name.replace("-", "_")
    taken = plugins(kind).get(module)
    if taken is not None:
        raise BpgenError(f"there is a {kind} {module!r} already, from {taken.package}. Choose another name.")
    used = re.search(rf"\b{class_name}\b", example) is not None  # what the example imports
    free = not keyword.iskeyword(module) and not used and find_spec(module) is None
    instead = f"{name.replace('_', '-')}-{kind}"
    require(free, f"{name!r} is a name of Python, of an installed module or of bpgen's own. Try {instead!r}.")


def _listed(texts: Mapping[KindName, str] | Mapping[str, str]) -> str:
    """Names with their texts, hanging."""
    lines = [f"  {name:<13}{text}" for name, text in texts.items()]
    return "\n".join(textwrap.fill(line, 110, subsequent_indent=" " * 15) for line in lines)
