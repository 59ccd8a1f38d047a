"""Checks of a task's life: the same data in every run, a perturbation that follows its generator, options, a stream."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
import yaml
from torch import Tensor

from bpgen.conformance.tasks.case import SUITE, Case
from bpgen.signatures import options_of
from bpgen.streams import generator
from bpgen.tasks import Split, Task


@SUITE.prop(
    "two of it hold the same data",
    "data do not depend on the run: only then are rules and seeds compared on the same sequences. Draw from a "
    "generator of your own (`bpgen.streams.generator`), never from the global stream.",
)
def _determined(case: Case) -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state()
    other, asked = case.fresh(), {}
    for name in reversed(list(case.splits())):
        asked[name] = other.split(name)
    assert torch.equal(torch.get_rng_state(), before), "loading draws from torch's global random stream."
    for name in asked:
        split = case.task.split(name)
        assert _equal(asked[name], split), f"{name} of another instance holds other data."
        assert other.split(name) is asked[name] or _equal(other.split(name), split), f"{name} is new at every call."


def _equal(one: Split, other: Split) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@SUITE.prop(
    "perturbing gives inputs of the same shape and leaves the given ones",
    "the clean test set is measured beside the noisy one: `perturb` returns new inputs [T,n,I] and touches nothing.",
)
def _perturbed(case: Case) -> None:
    x = case.inputs()
    before = x.clone()
    noisy = case.task.perturb(x, generator(0, "conformance"))
    assert torch.equal(x, before), "`perturb` overwrote the inputs it was handed."
    assert noisy.shape == x.shape, f"`perturb` gives {list(noisy.shape)} from {list(x.shape)}."
    assert noisy.dtype == x.dtype, f"`perturb` gives {noisy.dtype} from {x.dtype}."
    assert bool(noisy.isfinite().all()), "`perturb` gives nan or infinite values."
    some = case.task.perturb(x[:, :1], generator(0, "conformance"))
    assert list(some.shape) == [len(x), 1, x.shape[2]], "`perturb` of one sequence is not one sequence."


@SUITE.prop(
    "the perturbation follows its generator",
    "noise is drawn from the generator that is handed in: the same noise for every rule, another for every seed.",
)
def _generator(case: Case) -> None:
    x = case.inputs()

    def noisy(seed: int) -> Tensor:
        return case.task.perturb(x, generator(seed, "conformance"))

    before = torch.get_rng_state()
    first = noisy(0)
    assert torch.equal(torch.get_rng_state(), before), "`perturb` draws from torch's global random stream."
    assert torch.equal(noisy(0), first), "the same generator gives other noise."
    if case.task.noise_sd > 0:
        assert not torch.equal(first, x), "noise_sd is positive, and nothing is perturbed."
        assert not torch.equal(noisy(1), first), "another generator gives the same noise."


@SUITE.prop(
    "without noise nothing is perturbed",
    "noise_sd is how strong the perturbation is: at 0 the noisy test set is the clean one.",
    lambda case: "" if "noise_sd" in {o.name for o in options_of(case.cls)} else "its constructor takes no noise_sd",
)
def _no_noise(case: Case) -> None:
    x = case.inputs()
    still = case.fresh(noise_sd=0.0).perturb(x, generator(0, "conformance"))
    assert torch.equal(still, x), "with noise_sd = 0 inputs change (noise that does not follow it, or clipping)."


@SUITE.prop(
    "its options come back from a saved run",
    "a run keeps the task's options as YAML and builds it again from them: each needs a type that the command line can "
    "read, and a value that YAML can hold.",
)
def _options(case: Case) -> None:
    untyped = [option.name for option in options_of(case.cls) if not option.type]
    assert not untyped, f"{', '.join(untyped)} of its constructor has no type: `bpgen fit` cannot read it."
    given = {o.name: o.default for o in options_of(case.cls) if not o.required} | dict(case.options)
    try:
        saved = yaml.safe_load(yaml.safe_dump(given))
    except yaml.YAMLError as error:
        raise AssertionError(f"its options cannot be written as YAML: {error}") from error
    again = case.cls(**saved).split("train")
    assert _equal(again, case.task.split("train")), "built again from its saved options, it holds other data."


@SUITE.prop(
    "its stream can go on anywhere",
    "a stream is a function of (seed, t): a run that is continued at step t sees what it would have seen.",
    lambda case: "it has no stream" if case.cls.stream is Task.stream else "",
)
def _stream(case: Case) -> None:
    steps, later = 9, 4

    def some(seed: int, start: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        return list(islice(case.task.stream(3, seed, start), steps - start))

    whole = some(0, 0)
    for x, target, weight in whole:
        shapes = [list(x.shape), list(weight.shape)]
        assert shapes == [[3, case.task.n_in], [3]], (
            f"a step of the stream is x and weight {shapes}, not [B,I] and [B]."
        )
        assert len(target) == 3, f"a target of the stream is {list(target.shape)}, not one for each of B."
    _assert_same_steps(some(0, later), whole[later:], f"continued at step {later}, it is another stream")
    _assert_same_steps(some(0, 0), whole, "the same seed gives another stream")
    others = zip(some(1, 0), whole, strict=True)
    assert any(not torch.equal(a[0], b[0]) for a, b in others), "another seed gives the same stream."


def _assert_same_steps(got: Sequence[tuple[Tensor, ...]], expected: Sequence[tuple[Tensor, ...]], what: str) -> None:
    pairs = [(a, b) for one, other in zip(got, expected, strict=True) for a, b in zip(one, other, strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs), f"{what}."
