"""Liu et al. 2022: local rules find sharper minima and generalize worse than BPTT.

    (a) local rules end with a larger generalization gap than BPTT     (b) and with a more variable one
    (c) the gap grows with sharpness                                   (d) local rules approach higher curvature
    (e) theorem: λ_max stays at 2/(ηρ) or below; BPTT scaled by ρ reaches the rule's curvature; a part orthogonal to
        the gradient changes nothing                                   (f) remedies lower gap and sharpness
    (g) not in the paper: the noisy gap is what noise costs on training inputs (robustness) plus what is lost between
        noisy training and noisy test inputs (generalization); each is judged for itself
    (h) not in the paper: local rules diverge more often; what is compared at matched loss are those that did not

Every check compares at matched training loss unless it says otherwise, by task and alpha separately: alpha = 1 is the
released setting, in which the three-factor rule is the outer product of the last step.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import pandas as pd

from bpgen.analysis.matching import LOWEST_COMMON, Level
from bpgen.analysis.settings import (
    by_rule,
    settings,
)
from bpgen.analysis.verdicts import Check
from bpgen.figures.changes import Improvements
from bpgen.figures.study import sharpness_against_steps
from bpgen.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, Style
from bpgen.papers.base import Claim, Experiment, Paper, Size
from bpgen.papers.liu2022_checks import CHECKS, REFERENCE, REMEDIES, THREE_FACTOR

_MNIST = Experiment("liu2022", "task.data_dir")
_LEAKY = Experiment("liu2022_leaky", "task.data_dir")
_OTHERS = (Experiment("liu2022_pattern_generation"), Experiment("liu2022_delayed_match_to_sample"))


class Liu2022(Paper):
    """Liu, Ghosh, Richards, Shea-Brown and Lajoie: the solutions that local rules find in recurrent networks."""

    title = "Beyond accuracy: generalization properties of bio-plausible temporal credit assignment rules"
    citation = "Liu, Ghosh, Richards, Shea-Brown and Lajoie, NeurIPS 2022, arXiv 2206.00823"
    sizes: ClassVar = {
        "quick": Size([Experiment("liu2022_quick")], "embedded digits, alpha 1 and 0.5: about 5 minutes on 2 cores"),
        "default": Size([_MNIST], "MNIST, alpha 1: about an hour on 2 cores"),
        "full": Size(
            [*_OTHERS, _MNIST, _LEAKY],
            "also leaky neurons, pattern generation, delayed match to sample: about two hours on 2 cores",
        ),
    }
    claims: ClassVar = {
        "a": Claim("larger generalization gap for local rules", "worse generalization"),
        "b": Claim("more variable gap for local rules", "more variable generalization"),
        "c": Claim("the gap grows with sharpness", "a significant correlation with curvature"),
        "d": Claim("local rules approach higher curvature along training", "a tendency to high-curvature regions"),
        "e": Claim("theorem: λ_max against 2/η and 2/(ηρ), scaled BPTT, orthogonal noise", "a theorem"),
        "f": Claim("remedies: larger early learning rate, richer rules", "potential remedies"),
        "g": Claim("the noisy gap taken apart: robustness to noise, and generalization under noise"),
        "h": Claim("local rules diverge more often (where any run did)"),
    }
    headlines: ClassVar = {
        "sharper at the same training loss (λ_max)": ["three_factor is sharper than bptt"],
        "larger gap, noisy test inputs": ["three_factor has a larger gap than bptt (noisy test inputs)"],
        "… of which robustness to noise; generalization": [
            "noise on its training inputs costs three_factor more than it costs bptt (robustness)",
            "three_factor loses more than bptt from noisy training to noisy test inputs (generalization)",
        ],
        "larger gap, clean test inputs": ["three_factor has a larger gap than bptt (clean test inputs)"],
        "gap varies more over seeds": [
            "the gap of three_factor varies more over seeds than that of bptt (noisy test inputs)"
        ],
        "gap grows with sharpness among runs of one rule": [
            "gap and log sharpness correlate within rules, at matched training loss"
        ],
        "BPTT scaled by ρ (all steps; recurrent weights) is as sharp": [
            "scaled_bptt is as sharp as three_factor at matched training loss",
            "scaled_bptt, recurrent is as sharp as three_factor at matched training loss",
        ],
        "MDGL; ModProp (true weights): flatter": [
            "mdgl is less sharp than three_factor",
            "modprop is less sharp than three_factor",
        ],
    }
    remark = (
        "The bounds 2/η and 2/(ηρ) are those of plain gradient descent and of all weights; the curvature of a block "
        "such as W_rec is at most that of all weights: above its bound it is a violation, below it is only compatible "
        "with the theorem. MDGL and ModProp run with the true weights (weight transport), not with the averages over "
        "cell types of their publications, unless the plan says otherwise."
    )
    styles: ClassVar = {
        "bptt": Style(BLACK, "o"),
        "three_factor": Style(VERMILION, "s"),
        "eprop": Style(VERMILION, "s"),
        "rflo": Style(ORANGE, "^"),
        "scaled_bptt": Style(BLUE, "D"),
        "scaled_bptt, recurrent": Style("#332288", "d"),
        "noisy_bptt": Style(SKY, "v"),
        "noisy_bptt, remainder": Style("#44AA99", ">"),
        "mdgl": Style(GREEN, "P"),
        "modprop": Style(PURPLE, "X"),
        "three_factor, early lr": Style("#8B4513", "*"),
        "norm_matched": Style("#7F7F7F", "<"),
    }
    figures: ClassVar = {
        "sharpness_against_steps": partial(sharpness_against_steps, reference=REFERENCE, local=THREE_FACTOR),
        "remedies": Improvements(THREE_FACTOR, REMEDIES),
    }

    def checks(self, table: pd.DataFrame, level: Level = LOWEST_COMMON) -> list[Check]:
        """All checks that the study's conditions allow, setting by setting, in the order of the claims."""
        return [
            check
            for setting in settings(by_rule(table), level)
            if REFERENCE in setting.conditions and not setting.finished.empty
            for claim in CHECKS
            for check in claim(setting)
        ]
