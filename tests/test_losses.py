"""The losses against torch.nn.functional, their derivative against autograd, and the penalty."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bpgen.errors import BpgenError
from bpgen.losses import L2, Activity, Loss
from tests.oracles import activity_cost, assert_equal, autograd, distance, problem, randn

T, B, O = 6, 4, 3
MASK = randn(2, T, B).abs()
CLASSES = torch.randint(O, (T, B), generator=torch.Generator().manual_seed(0))
CASES = [
    ("cross_entropy", "last", None),
    ("cross_entropy", "all", None),
    ("cross_entropy", "all", MASK),
    ("mse", "last", None),
    ("mse", "all", None),
    ("mse", "all", MASK),
]
every_case = pytest.mark.parametrize(("kind", "when", "mask"), CASES)


def batch(kind, when):
    y, target = randn(0, T, B, O), CLASSES if kind == "cross_entropy" else randn(1, T, B, O)
    return (y, target) if when == "all" else (y[-1], target[-1])


def test_cross_entropy_is_the_mean_over_samples_and_steps():
    for when in ("last", "all"):
        y, target = batch("cross_entropy", when)
        torch.testing.assert_close(
            Loss("cross_entropy", when).data(y, target),
            F.cross_entropy(y.reshape(-1, O), target.reshape(-1), reduction="mean"),
        )


def test_squared_error_is_half_the_sum_over_steps_and_outputs_and_the_mean_over_samples():
    for when in ("last", "all"):
        y, target = batch("mse", when)
        expected = 0.5 * F.mse_loss(y, target, reduction="sum") / B
        torch.testing.assert_close(Loss("mse", when).data(y, target), expected)


@pytest.mark.parametrize("kind", ["cross_entropy", "mse"])
def test_mask_weights_the_steps_and_replaces_the_default_weight(kind):
    y, target = batch(kind, "all")
    each = [
        Loss(kind, "last").data(y[t, b : b + 1], target[t, b : b + 1]) * MASK[t, b] / B
        for t in range(T)
        for b in range(B)
    ]
    torch.testing.assert_close(Loss(kind, "all", MASK).data(y, target), torch.stack(each).sum())
    default = torch.full((T, B), 1 / T if kind == "cross_entropy" else 1.0, dtype=torch.float64)
    torch.testing.assert_close(Loss(kind, "all", default).data(y, target), Loss(kind, "all").data(y, target))
    last = torch.zeros(T, B, dtype=torch.float64)
    last[-1] = 1
    torch.testing.assert_close(Loss(kind, "all", last).data(y, target), Loss(kind, "last").data(y[-1], target[-1]))


@every_case
def test_error_is_the_derivative_by_the_outputs(kind, when, mask):
    y, target = batch(kind, when)
    loss, leaf = Loss(kind, when, mask), y.clone().requires_grad_()
    value, error = loss.data_and_error(y, target)
    expected = torch.autograd.grad(loss.data(leaf, target), leaf)[0]
    torch.testing.assert_close(value, loss.data(y, target))
    expected = expected if when == "all" else expected.unsqueeze(0)  # at the last L steps, always
    torch.testing.assert_close(error, expected)
    assert value.ndim == 0
    assert distance(loss.data_and_error(y + 0.1 * randn(5, *y.shape), target)[1], expected) > 0.01


@every_case
def test_the_loss_of_each_sequence_is_the_loss_of_a_batch_of_one(kind, when, mask):
    y, target = batch(kind, when)
    sample = -1 if kind == "cross_entropy" else -2
    each = Loss(kind, when, mask).per_sample(y, target)
    torch.testing.assert_close(each.mean(), Loss(kind, when, mask).data(y, target))
    for b in range(B):
        own = Loss(kind, when, None if mask is None else mask[:, b : b + 1])
        alone = own.data(y[..., b : b + 1, :], target.movedim(sample, 0)[b : b + 1].movedim(0, sample))
        torch.testing.assert_close(each[b], alone)
    assert each.shape == (B,)
    assert each.std() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
@pytest.mark.parametrize("kind", ["cross_entropy", "mse"])
def test_any_type_of_mask_keeps_full_precision(kind, dtype):
    y, target = batch(kind, "all")
    y, target, mask = y[:, :3], target[:, :3], (MASK[:, :3] > 0.5)  # a third is not a float32
    error, expected = (Loss(kind, "all", m).data_and_error(y, target)[1] for m in (mask.to(dtype), mask.double()))
    torch.testing.assert_close(error, expected, rtol=1e-14, atol=0)
    assert error[~mask].norm() == 0 < error.norm()


@every_case
def test_split_batches_add_up(kind, when, mask):
    y, target = batch(kind, when)
    sample = -1 if kind == "cross_entropy" else -2  # the batch axis of the target

    def part(first, last):
        m = None if mask is None else mask[:, first:last]
        cut = target.movedim(sample, 0)[first:last].movedim(0, sample)
        return Loss(kind, when, m).data(y[..., first:last, :], cut) * (last - first) / B

    torch.testing.assert_close(part(0, 1) + part(1, 4), Loss(kind, when, mask).data(y, target))
    assert abs(float(part(0, 1))) > 1e-3


@pytest.mark.parametrize(
    ("penalty", "c"),
    [
        (0.3, {"W_in": 0.3, "W_rec": 0.3, "W_out": 0.3}),
        ({"W_rec": 0.2}, {"W_rec": 0.2}),
        ({"W_out": 0.5, "b_out": 0.1, "W_in": 0.0}, {"W_out": 0.5, "b_out": 0.1}),
        (L2({"W_in": 0.7}), {"W_in": 0.7}),
    ],
)
def test_l2_value_and_gradient(penalty, c):
    p = problem()
    params = {n: w.clone().requires_grad_() for n, w in p.network.params().items()}
    value = sum(0.5 * c[n] * (params[n] ** 2).sum() for n in c)
    expected = dict(zip(c, torch.autograd.grad(value, [params[n] for n in c]), strict=True))
    l2 = L2.of(penalty)
    torch.testing.assert_close(l2.value(params), value)
    got = l2.gradient(params)
    assert set(got) == set(c)
    assert_equal(got, expected)
    assert l2.gradient(params)["W_in" if "W_in" in c else "W_out" if "W_out" in c else "W_rec"].norm() > 0


def test_l2_joins_loss_and_gradient_of_every_rule_exactly_once():
    import bpgen

    p = problem()
    exact = autograd(p)
    for rule in ("bptt", "three_factor", "readout_only"):
        args = (rule, p.network, p.x, p.target, "mse", "all", None, p.s_0)
        bare, full = bpgen.gradients(*args), bpgen.gradients(*args, regulariser=0.3)
        penalty = sum(0.15 * float((w**2).sum()) for n, w in p.network.params().items() if n[0] == "W")
        assert float(full.loss - bare.loss) == pytest.approx(penalty, rel=1e-12)
        for name, w in p.network.params().items():
            added = full.grads[name] - bare.grads[name]
            if name.startswith("b"):
                assert not added.any(), name  # a bias is never penalised
            else:  # the stored diagonal of W_rec is, as in the released code
                torch.testing.assert_close(added, 0.3 * w, rtol=1e-12, atol=1e-14)
        assert (full.grads["W_rec"].diagonal() != 0).all()
        assert not bare.grads["W_rec"].diagonal().any()
    assert_equal(bpgen.gradients("bptt", *args[1:]).grads, exact)


def test_without_regulariser_and_with_mask_change_nothing_else():
    y, target = batch("mse", "all")
    loss = Loss("mse", "all", MASK, L2({"W_rec": 1.0}))
    params = {"W_rec": randn(3, 5, 5)}
    bare = loss.without_regulariser()
    torch.testing.assert_close(loss.data(y, target), bare.total(y, target, params))
    torch.testing.assert_close(
        loss.total(y, target, params) - bare.total(y, target, params), 0.5 * (params["W_rec"] ** 2).sum()
    )
    assert loss.regularised
    assert not bare.regularised
    costly = Loss("mse", "all", None, None, Activity(0.5))
    assert costly.regularised
    assert not costly.without_regulariser().regularised
    with pytest.raises(BpgenError, match=r"needs the activities: total\(\.\.\., h\)"):
        costly.total(y, target, params)
    assert Loss("mse", "all").with_mask(MASK).mask is MASK
    assert loss.with_mask(None).regulariser is loss.regulariser


@pytest.mark.parametrize(("form", "target"), [("rate", 0.0), ("rate", 0.4), ("square", 0.0)])
def test_activity_value_gradient_and_split_batches(form, target):
    activity, h = Activity(0.6, form, target), randn(4, T + 1, B, 5).requires_grad_()
    expected = activity_cost(list(h), 0.6, form, target)
    torch.testing.assert_close(activity.value(h), expected)
    torch.testing.assert_close(activity.per_sample(h).mean(), expected)
    torch.testing.assert_close(activity.per_sample(h)[:1], activity.value(h[:, :1]).expand(1))
    slope = torch.autograd.grad(expected, h)[0]
    assert not slope[0].any()  # the start of a sequence costs nothing
    torch.testing.assert_close(activity.gradient(h.detach()), slope[1:])
    assert distance(activity.gradient(-h.detach()), slope[1:]) > 0.1
    parts = activity.value(h[:, :1]) + 3 * activity.value(h[:, 1:])
    torch.testing.assert_close(parts / B, activity.value(h))
    y, goal = batch("mse", "all")
    total, bare = Loss("mse", "all", None, None, activity).total(y, goal, {}, h), Loss("mse", "all").data(y, goal)
    torch.testing.assert_close(total - bare, expected)


def test_one_sequence_a_batch_is_the_rate_cost_of_bellec():
    h = randn(4, T + 1, 1, 5)
    f_av = h[1:].mean((0, 1))  # over steps and sequences
    torch.testing.assert_close(Activity(0.6, "rate", 0.1).value(h), 0.3 * ((f_av - 0.1) ** 2).sum())
    several = randn(4, T + 1, B, 5)
    f_av = several[1:].mean((0, 1))
    shared = 0.3 * ((f_av - 0.1) ** 2).sum()
    spread = 0.3 * several[1:].mean(0).var(0, correction=0).sum()  # what the deviation adds
    torch.testing.assert_close(Activity(0.6, "rate", 0.1).value(several), shared + spread)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Loss("cross-entropy"), "unknown loss 'cross-entropy'.*Did you mean 'cross_entropy'"),
        (lambda: Loss("mse", "lats"), "unknown loss.when 'lats'.*Did you mean 'last'"),
        (lambda: Loss("mse", "last", MASK), "a mask needs when='all'"),
        (lambda: L2.of(-0.1), "l2 of W_in must be >= 0 .*, got -0.1"),
        (lambda: L2.of({"W_rec": -1.0}), "l2 of W_rec must be >= 0"),
        (lambda: Activity(-1.0), "loss.activity must be >= 0 .*, got -1.0"),
        (lambda: Activity(1.0, "rates"), "unknown loss.activity_form 'rates'.*Did you mean 'rate'"),
        (lambda: Activity(1.0, "square", 0.1), "'square' has none, got 0.1"),
    ],
)
def test_bad_options_name_what_was_expected(build, message):
    with pytest.raises(BpgenError, match=message):
        build()


@pytest.mark.parametrize("nothing", [None, 0, 0.0, {}, {"W_rec": 0.0}])
def test_no_penalty_is_no_regulariser(nothing):
    assert L2.of(nothing) is None


def test_a_number_is_the_rate_cost_and_zero_is_none():
    assert Activity.of(0.3) == Activity(0.3, "rate", 0.0)
    assert Activity.of(None) is Activity.of(0.0) is Activity.of(Activity(0.0, "square")) is None


@every_case
def test_the_error_along_tangents_is_the_derivative_of_the_error(kind, when, mask):
    loss = Loss(kind, when, mask)
    y = randn(0, T, B, O) if when == "all" else randn(0, B, O)
    target = y.argmax(-1) if kind == "cross_entropy" else randn(1, *y.shape)
    dy = randn(3, 2, *y.shape)
    rows = [torch.func.jvp(lambda y: loss.data_and_error(y, target)[1], (y,), (row,))[1] for row in dy]
    dy = dy if when == "all" else dy.unsqueeze(1)  # [V,L,B,O]
    torch.testing.assert_close(loss.error_along(y, dy), torch.stack(rows), rtol=1e-12, atol=1e-15)
