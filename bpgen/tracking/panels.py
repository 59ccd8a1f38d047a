"""The panels of a W&B page about bpgen's runs, section by section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bpgen.tracking.sweep import NAMES

RULE, _CONDITION = f"{NAMES}.rule", "tracking.condition"
_SHARP, _GAP = "sharpness/lambda_max", "gap_noisy/accuracy"


class _Panels:
    """Panels by what they show, of W&B's library `wr`."""

    def __init__(self, wr: Any) -> None:
        self._wr = wr

    def line(self, title: str, *metrics: str, bounds: Sequence[str] = (), **options: Any) -> Any:
        """Metrics against steps, mean and standard error of each rule."""
        return self._wr.LinePlot(
            title=title,
            x="step",
            y=list(metrics),
            custom_expressions=list(bounds) or None,
            **self._grouped(RULE),
            **options,
        )

    def bars(self, title: str, metric: str, by: str) -> Any:
        """A metric at the end, mean and standard error of each group."""
        return self._wr.BarPlot(title=title, metrics=[metric], orientation="v", **self._grouped(by))

    def scatter(self, title: str, x: str, y: str, **options: Any) -> Any:
        """A point for each run, with a regression."""
        x, y = self._wr.SummaryMetric(x), self._wr.SummaryMetric(y)
        return self._wr.ScatterPlot(title=title, x=x, y=y, regression=True, **options)

    def _grouped(self, by: str) -> dict[str, Any]:
        return {"groupby": self._wr.Config(by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}


def sections(wr: Any) -> list[tuple[str, list[Any]]]:
    """Every section with its panels."""
    single = [wr.RunComparer(diff_only="split"), wr.MediaBrowser(media_keys=["figures/overview"])]
    return [*_solutions(_Panels(wr)), *_training(_Panels(wr)), ("Runs", single)]


def _solutions(panels: _Panels) -> list[tuple[str, list[Any]]]:
    """What solutions the rules find."""
    stable = [f"stability/{name}" for name in ("lambda_max", "mu_abs", "bound", "bound_rho")]
    end = f"{_SHARP}.last"
    return [
        (
            "Sharpness",
            [
                panels.line("λ_max and 2/η, by rule", _SHARP, bounds=["2 / ${lr}"], log_y=True),
                panels.line("λ_1, |μ_1| and their bounds, all weights", *stable, log_y=True),
                panels.line("λ_1 over 2/η: 1 is the edge", "stability/edge", "stability/edge_rho"),
            ],
        ),
        (
            "Generalization gap",
            [
                panels.line("gap, noisy test inputs", _GAP),
                panels.line("gap, clean test inputs", "gap/accuracy"),
                panels.line("gap in loss, noisy test inputs", "gap_noisy/loss"),
                panels.bars("gap at the end, noisy test inputs", f"{_GAP}.last", RULE),
            ],
        ),
        (
            "Gap against sharpness",
            [
                panels.scatter("gap against λ_max, at the end", end, f"{_GAP}.last", log_x=True),
                panels.scatter("gap in loss against λ_max, at the end", end, "gap_noisy/loss.last", log_x=True),
            ],
        ),
    ]


def _training(panels: _Panels) -> list[tuple[str, list[Any]]]:
    """How they come there."""
    return [
        ("Alignment with BPTT", [panels.line("cosine", "alignment/cosine"), panels.line("ρ", "alignment/rho")]),
        (
            "Spectra",
            [
                panels.line("leading eigenvalues", *(f"spectrum/lambda_{i}" for i in (1, 2, 3)), log_y=True),
                panels.line("trace with its interval", *(f"spectrum/trace{end}" for end in ("", "_low", "_high"))),
                panels.line("share of negative eigenvalues", "spectrum/negative"),
            ],
        ),
        (
            "Sample efficiency",
            [
                panels.line("loss of training batches", "train/loss_step", log_y=True),
                panels.line("training loss", "train/loss", log_y=True),
                panels.line("validation accuracy", "val/accuracy"),
                panels.line("test accuracy, noisy inputs", "test_noisy/accuracy"),
            ],
        ),
        (
            "Remedies: by condition",
            [
                panels.bars("gap at the end, noisy test inputs", f"{_GAP}.last", _CONDITION),
                panels.bars("λ_max at the end", f"{_SHARP}.last", _CONDITION),
                panels.bars("training loss at the end", "train/loss", _CONDITION),
            ],
        ),
    ]
