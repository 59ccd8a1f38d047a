"""`bpgen new-rule`: a complete package with a learning rule, ready to be installed, tested and changed."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from bpgen.cli.listing import Parser
from bpgen.errors import BpgenError, require
from bpgen.registry import plugins

STYLES = {
    "credit": "from output error to the credit of every input current, at once: `credit(trajectory, error)`. Shortest; "
    "bpgen runs the network and makes weight gradients. The example sends the error through the signs of W_out.",
    "online": "forward in time with a state that does not grow: `start(...)` and `step(state, moment)`, in which there "
    "is no future. The example is an eligibility trace with random feedback.",
    "gradient": "all of it by yourself: `estimate(problem, draws)`, for rules that are not "
    "credit, such as perturbation. The example perturbs the recurrent weights.",
}
_TEMPLATES = files("bpgen.cli") / "templates"


def run(argv: list[str]) -> int:
    """Write the package into a new folder here, and say what to do with it."""
    styles = "\n".join(f"  {style:<10}{text}" for style, text in STYLES.items())
    parser = Parser(
        prog="bpgen new-rule",
        description="Write a complete package with a learning rule of your own into a new folder named after it: the\n"
        "rule (a worked example that trains and passes its tests), a pyproject.toml that announces it, tests, README.",
        epilog=f"three ways to write a rule, each with an example that works as it is:\n{_wrapped(styles)}",
    )
    parser.add_argument("name", help="name of the rule in lower case, e.g. my-rule, which is `--rule my_rule` then")
    parser.add_argument("--style", choices=STYLES, default="credit", help="how it is written (default: credit)")
    options = parser.parse_args(argv)
    folder = Path(options.name)
    written = package(options.name, options.style)
    require(not folder.exists(), f"{folder} exists already; nothing was written. Choose another name or place.")
    try:
        folder.mkdir()
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BpgenError(f"cannot write into {folder}: {error.strerror}.") from error
    module = options.name.replace("-", "_")
    print(f"{folder}: {', '.join(written)}\n\nnext:")
    print(f"  cd {folder} && pip install -e . --no-deps   # from then on it is in `bpgen rules`")
    print(f"  bpgen check {module} && pytest\n  bpgen fit --rule {module}")
    return 0


def package(name: str, style: str) -> dict[str, str]:
    """The files of the package of a new rule, by name.

    Args:
        name: of the rule, in lower case, words joined by hyphens or underscores.
        style: a key of `STYLES`.

    Raises:
        BpgenError: a name that is malformed, or that something else has already.
    """
    suggestion = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-0123456789")
    require(
        re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) is not None,
        f"a rule's name is lower-case words joined by hyphens, got {name!r}."
        + (f" Try {suggestion!r}." if suggestion else ""),
    )
    module, slug = name.replace("-", "_"), name.replace("_", "-")
    words = slug.split("-")
    class_name = "".join(word.capitalize() for word in words)
    taken = plugins("rule").get(module)
    if taken is not None:
        raise BpgenError(f"there is a rule {module!r} already, from {taken.package}. Choose another name.")
    example = (_TEMPLATES / f"{style}.py.txt").read_text(encoding="utf-8")
    used = re.search(rf"\b{class_name}\b", example) is not None  # what the example imports
    free = not keyword.iskeyword(module) and not used and find_spec(module) is None
    require(free, f"{name!r} is a name of Python, of an installed module or of bpgen's own. Try {slug + '-rule'!r}.")
    values = {"slug": slug, "module": module, "class": class_name, "title": " ".join(words).capitalize()}
    sources = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"{module}.py": f"{style}.py.txt",
        f"test_{module}.py": "test_rule.py.txt",
    }
    return {
        name: Template((_TEMPLATES / source).read_text(encoding="utf-8")).substitute(values)
        for name, source in sources.items()
    }


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.fill(line, 110, subsequent_indent=" " * 12) for line in text.splitlines())
