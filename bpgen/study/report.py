"""What a study found, for the terminal and as summary.md in its folder: command, seeds, spread, figures, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bpgen._version import __version__
from bpgen.analysis.matching import finished
from bpgen.analysis.sequential import spending_in_words
from bpgen.figures.study import Panel, study_figures
from bpgen.figures.style import Styles
from bpgen.study import registered, sections
from bpgen.study.runs import ENDED
from bpgen.study.study import StudyResults


def report_study(
    results: StudyResults,
    command: str,
    first: Sequence[str] = (),
    fixed: Styles | None = None,
    panels: Mapping[str, Panel] | None = None,
) -> str:
    """Draw the figures, write summary.md, and return the text that says what was found.

    Args:
        results: the study with its runs.
        command: as the user typed it.
        first: lines that stand above all other sections, such as a paper's claims.
        fixed: styles of conditions in the figures.
        panels: figures beside those of every study, or instead of them.
    """
    plan, table = results.plan, results.table
    parts = [f"# {plan.name}", "", *([plan.question, ""] if plan.question else [])]
    parts += [f"`{command}` (bpgen {__version__}), seeds {', '.join(map(str, plan.seeds))}", "", _counts(results), ""]
    parts += [registered.plan_in_words(results.folder), ""]
    parts += [spending_in_words(table), ""] if plan.looks else []
    if not finished(table).empty:
        parts += first
        parts += sections.at_the_end(table) + sections.paired_differences(table) + sections.how_rough(table)
        parts += sections.over_bounds(table)
        parts += _correlations(results) + _draw(results, fixed, panels)
    parts += _tuned(results) + _unfinished(results)
    text = "\n".join(parts)
    summary = results.folder / "summary.md"
    summary.write_text(text + "\n", encoding="utf-8")
    return text + f"\n\ntable     {results.folder / 'table.csv'}\nsummary   {summary}"


def _counts(results: StudyResults) -> str:
    count = Counter(run.status for run in results.runs)
    skipped = sum(run.skipped for run in results.runs)
    parts = [f"{count[s]} {s}" for s in (*ENDED, "interrupted", "failed") if count[s]]
    return f"{len(results.runs)} runs: {', '.join(parts)}; {skipped} of them done by an earlier call."


def _correlations(results: StudyResults) -> list[str]:
    table = sections.correlations(results.table)
    section = sections.correlation_section(table)
    if section:
        table.to_csv(results.folder / "correlations.csv", index=False)
    return section


def _draw(results: StudyResults, fixed: Styles | None, panels: Mapping[str, Panel] | None) -> list[str]:
    folder = results.folder / "figures"
    folder.mkdir(exist_ok=True)
    lines = ["## Figures", ""]
    for name, figure in study_figures(results.table, fixed, panels).items():
        figure.savefig(folder / f"{name}.png")
        lines.append(f"![{name.replace('_', ' ')}](figures/{name}.png)")
    return [*lines, ""]


def _tuned(results: StudyResults) -> list[str]:
    if not results.tuning:
        return []
    chosen = {run.condition.label: run.tuned for run in results.runs if run.tuned}
    lines = [f"- {label}: {', '.join(f'{k} {v}' for k, v in values.items())}" for label, values in chosen.items()]
    return ["## Tuned on validation data (all candidates: tuning.csv)", "", *lines, ""]


def _unfinished(results: StudyResults) -> list[str]:
    unfinished = [run for run in (*results.tuning, *results.runs) if run.status != "finished"]
    lines = [f"- {r.name}: {r.status}: {r.message.removeprefix(f'{r.status}: ')}" for r in unfinished]
    return ["## Runs that did not finish", "", *lines, ""] if lines else []
