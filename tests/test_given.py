"""What Python callers hand in: cast where nothing is lost, refused with the reason and the cure elsewhere."""

import numpy as np
import pytest
import torch
from torch import Tensor

import bpgen
from bpgen.errors import BpgenError
from bpgen.stability import stability

T, B, I, O = 5, 4, 3, 2
X = torch.randint(2, (T, B, I), generator=torch.Generator().manual_seed(0)).double()
Y = torch.tensor([0, 1, 1, 0])
VALUES = torch.arange(B * O).view(B, O)
MASK = torch.tensor([[0.0, 1, 1, 0]] * T)


def network(n_out: int = O) -> bpgen.Network:
    return bpgen.Network(bpgen.neurons.Leaky(alpha=0.5), n_in=I, n_rec=6, n_out=n_out, seed=0)


FACES = {
    "gradients": lambda net, x, y, **more: bpgen.gradients("eprop", net, x, y, **more).grads["W_rec"],
    "sharpness": lambda net, x, y, **more: bpgen.sharpness(net, x, y, **more).eigenvalues,
    "stability": lambda net, x, y, **more: stability("eprop", net, x, y, lr=0.1, **more).mu,
}
every_face = pytest.mark.parametrize("face", FACES)


FORMS = {
    "lists": lambda t: t.tolist(),
    "numpy": lambda t: t.numpy(),
    "numpy int8": lambda t: t.numpy().astype(np.int8),
    "numpy float16": lambda t: t.numpy().astype(np.float16),
    "numpy backwards": lambda t: t.flip(0).numpy()[::-1],
    "numpy big-endian": lambda t: t.numpy().astype(t.numpy().dtype.newbyteorder(">")),
    "numpy long double": lambda t: t.numpy().astype(np.longdouble),
    "numpy read-only": lambda t: np.frombuffer(t.numpy().tobytes(), t.numpy().dtype).reshape(t.shape),
    "bool": lambda t: t.bool(),
    "int32": lambda t: t.int(),
    "float64": lambda t: t.double(),
    "not contiguous": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
}


@every_face
@pytest.mark.parametrize("form", FORMS)
def test_any_array_of_numbers_is_what_it_says(face: str, form: str) -> None:
    of, change = FACES[face], FORMS[form]
    expected = of(network(), X.float(), Y)
    assert torch.equal(of(network(), change(X), change(Y)), expected)
    other = of(network(), change(X), 1 - change(Y) if isinstance(change(Y), np.ndarray) else (1 - Y).tolist())
    assert not torch.equal(other, expected)  # the target counts


@every_face
def test_values_masks_and_starts_are_cast_like_inputs(face: str) -> None:
    of = FACES[face]
    start = torch.ones(B, 1, 6)
    expected = of(network(), X.float(), VALUES.float(), loss="mse", initial_state=start)
    assert torch.equal(of(network(), X, VALUES.tolist(), loss="mse", initial_state=start.int().numpy()), expected)
    steps = torch.stack([Y] * T)
    masked = of(network(), X.float(), steps, when="all", mask=MASK)
    assert torch.equal(of(network(), X, steps.tolist(), when="all", mask=MASK.bool().tolist()), masked)
    assert not torch.equal(of(network(), X, steps, when="all"), masked)


@every_face
def test_a_mask_of_ones_is_t_times_no_mask_and_divided_by_its_sum_it_is_none(face: str) -> None:
    """For the cross-entropies; for squared error a mask of ones is no mask as it is."""
    of, steps, ones = FACES[face], torch.stack([Y] * T), torch.ones(T, B)
    without = of(network(), X, steps, when="all")
    close = {"rtol": 1e-4, "atol": 1e-6}
    if face != "stability":  # whose numbers are no multiple of the loss
        torch.testing.assert_close(of(network(), X, steps, when="all", mask=ones), T * without, **close)
    torch.testing.assert_close(of(network(), X, steps, when="all", mask=ones / ones.sum(0)), without, **close)
    values = torch.stack([VALUES] * T)
    squared = of(network(), X, values, loss="mse", when="all")
    torch.testing.assert_close(of(network(), X, values, loss="mse", when="all", mask=ones), squared, **close)


@every_face
@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("when", ["last", "all"])
def test_one_value_needs_no_axis(face: str, loss: str, when: str) -> None:
    of, net = FACES[face], network(n_out=1)
    y = Y if when == "last" else torch.stack([Y] * T)
    expected = of(net, X, y.unsqueeze(-1).float(), loss=loss, when=when)
    assert torch.equal(of(net, X, y.tolist(), loss=loss, when=when), expected)
    assert not torch.equal(of(net, X, 1 - y, loss=loss, when=when), expected) or face == "sharpness"


REFUSED = {
    "ragged lists": ({"x": [[[0.0, 1.0]], [[0.0]]]}, r"x must be numbers .*nested lists"),
    "text": ({"x": np.array([["a"]])}, "x must be numbers"),
    "sparse": ({"x": X.to_sparse()}, r"x is a sparse tensor: give \.to_dense\(\)"),
    "complex": ({"x": X.to(torch.complex64)}, "real numbers"),
    "too large": ({"x": X * 1e300}, "torch.float64"),
    "two axes": ({"x": X[:, 0]}, "time first"),
    "no tensor": ({"x": object()}, "x must be numbers"),
    "fractions as classes": ({"y": torch.tensor([0.5, 1, 0, 1])}, "loss='mse'"),
    "a class too many": ({"y": torch.tensor([0, 1, 2, 0])}, "classes 0..1 for 2 outputs, got 2"),
    "a class below": ({"y": torch.tensor([0, 1, -100, 0])}, "got -100. Weight padded steps with a mask of 0"),
    "nan": ({"x": X * float("nan")}, "x holds 60 nan or infinite values, the first at .0, 0, 0."),
    "an infinite value": ({"x": X.index_fill(2, torch.tensor([1]), float("inf"))}, "x holds 20 nan or infinite"),
    "one output": ({"net": network(n_out=1), "y": torch.zeros(B)}, "n_out=2, or loss='mse'"),
    "no network": ({"net": torch.nn.Linear(3, 2)}, "got a Linear"),
}


@every_face
@pytest.mark.parametrize("fault", REFUSED)
def test_what_has_no_meaning_is_refused_with_the_cure(face: str, fault: str) -> None:
    given, message = REFUSED[fault]
    with pytest.raises(BpgenError, match=message):
        FACES[face](given.get("net", network()), given.get("x", X), given.get("y", Y))


@pytest.mark.parametrize("rule", [network(), None, 3])
def test_something_that_is_no_rule_is_refused(rule: object) -> None:
    with pytest.raises(BpgenError, match="a rule or a rule's name"):
        bpgen.gradients(rule, network(), X, Y)  # type: ignore[arg-type]
    with pytest.raises(BpgenError, match="a rule or a rule's name"):
        stability(rule, network(), X, Y, lr=0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "x",
    [
        X[:, 0],
        X[0],
        X[0, 0],
        X[None],
        X[..., :2],
        X.repeat(1, 1, 2),
        X[..., None],
        torch.rand(20, 8),
        X.numpy(),
        X.tolist(),
    ],
)
def test_a_call_of_the_network_sees_that_x_fits(x: Tensor) -> None:
    with pytest.raises(BpgenError, match=r"\[T,B,I\] with I=3"):
        network()(x)


STEPS = torch.stack([Y] * T)


@every_face
@pytest.mark.parametrize(
    ("mask", "message"),
    [(-MASK, ">= 0"), (MASK * 0, "zero everywhere"), (MASK * float("nan"), "nan or infinite"), (MASK[0], r"\[T,B\]")],
)
def test_weights_of_steps_that_are_none_are_refused(face: str, mask: Tensor, message: str) -> None:
    with pytest.raises(BpgenError, match=message):
        FACES[face](network(), X, STEPS, when="all", mask=mask)


@every_face
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_what_stands_in_padding_reaches_nothing(face: str, loss: str) -> None:
    of, lengths = FACES[face], torch.tensor([3, 5, 2, 4])
    off = torch.arange(T).unsqueeze(1) >= lengths
    target = STEPS if loss == "cross_entropy" else torch.rand(T, B, O, generator=torch.Generator().manual_seed(1))
    expected = of(network(), X.masked_fill(off.unsqueeze(-1), 0), target, loss=loss, when="all", mask=~off)
    nan = float("nan")
    dirty = target.masked_fill(off, -100) if loss == "cross_entropy" else target.masked_fill(off.unsqueeze(-1), nan)
    assert torch.equal(
        of(network(), X.masked_fill(off.unsqueeze(-1), nan), dirty, loss=loss, when="all", mask=~off), expected
    )
    one_more = torch.arange(T).unsqueeze(1) <= lengths
    with pytest.raises(BpgenError, match=r"nan or infinite|classes"):
        of(network(), X.masked_fill(off.unsqueeze(-1), nan), dirty, loss=loss, when="all", mask=one_more)


RATIOS = {"norm_matched", "scaled_bptt", "unscaled"}  # of a batch's gradients: no sum over its sequences
RULES = [name for name, t in bpgen.list_rules().items() if not t.stochastic and t.update == "gradient"]


@pytest.mark.parametrize("rule", sorted(set(RULES) - RATIOS))
@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_lengths_are_each_sequence_by_itself(rule: str, when: str, loss: str) -> None:
    net = bpgen.Network(bpgen.neurons.Leaky(alpha=0.5), n_in=I, n_rec=6, n_out=O, seed=0, dtype=torch.float64)
    lengths, nan = torch.tensor([3, 5, 1, 4]), float("nan")
    target = STEPS.clone() if loss == "cross_entropy" else torch.rand(T, B, O, dtype=torch.float64)
    target = target[-1] if when == "last" else target
    padded = X.masked_fill((torch.arange(T).unsqueeze(1) >= lengths).unsqueeze(-1), nan)
    options = {"loss": loss, "when": when}
    found = bpgen.gradients(rule, net, padded, target, lengths=lengths, **options).grads
    apart = [
        bpgen.gradients(
            rule, net, X[:n, b : b + 1], target[b : b + 1] if when == "last" else target[:n, b : b + 1], **options
        ).grads
        for b, n in enumerate(lengths.tolist())
    ]
    for name, grad in found.items():
        expected = sum(each[name] for each in apart) / B
        assert torch.allclose(grad, expected, rtol=1e-10, atol=1e-12), name
    wrong = bpgen.gradients(rule, net, X, target, **options).grads  # negative control
    assert any(not torch.allclose(wrong[name], found[name], rtol=1e-3) for name in found)


@every_face
@pytest.mark.parametrize("lengths", [[3, 5, 0, 4], [3, 6, 1, 4], [3.5, 1, 2, 3], [1, 2]])
def test_lengths_that_are_none_are_refused(face: str, lengths: list[float]) -> None:
    with pytest.raises(BpgenError, match=r"lengths must be whole numbers \[B\] = \[4\] from 1 to T = 5"):
        FACES[face](network(), X, Y, lengths=lengths)


def test_sharpness_with_lengths_is_that_of_the_dense_hessian_of_the_mean() -> None:
    net = bpgen.Network(bpgen.neurons.Leaky(alpha=0.5), n_in=I, n_rec=6, n_out=O, seed=0, dtype=torch.float64)
    lengths = [3, 5, 1, 4]

    def loss(W_rec: Tensor) -> Tensor:
        params = {**net.params(), "W_rec": W_rec}
        runs = [net.run(params, X[:n, b : b + 1], in_place=False).outputs for b, n in enumerate(lengths)]
        return torch.nn.functional.cross_entropy(torch.cat(runs), Y)

    free = ~torch.eye(6, dtype=torch.bool).flatten()
    dense = torch.autograd.functional.hessian(loss, net.params()["W_rec"]).view(36, 36)[free][:, free]
    found = bpgen.sharpness(net, X, Y, lengths=lengths, tol=1e-8)
    assert float(found.eigenvalues[0]) == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-10)
