"""Any module: the Hessian against differences of plain backward passes, what is left as found, and what is refused."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpgen.curvature import ModuleProducts, density, module_sharpness, trace
from bpgen.errors import BpgenError
from tests.oracles import distance, randn

X, Y = randn(1, 6, 5, 4), torch.arange(6) % 3  # six sequences of five tokens with four features


class Head(nn.Module):
    """A body, and three outputs of its mean over tokens."""

    def __init__(self, body: nn.Module, width: int = 4) -> None:
        super().__init__()
        self.body, self.out = body, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.out((h[0] if isinstance(h, tuple) else h).mean(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(q, k, v).squeeze(1)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


class Stateful(nn.Module):
    """A cell that remembers its last activity as a plain attribute, with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.h, self.calls = nn.RNNCell(4, 4), torch.zeros(6, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        start = self.h.detach()
        h, outputs = start, []
        for x_t in x.unbind(1):
            h = self.cell(x_t, h)
            outputs.append(h)
        self.h = h
        return torch.stack(outputs, 1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class Lookup(nn.Module):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4, sparse=sparse)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.table((x[..., 0] > 0).long() + (x[..., 1] > 0).long()))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(nn.Linear(4, 4))


BODIES = {
    "linear": lambda: nn.Linear(4, 4),
    "weight_norm, old": old_weight_norm,
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "spectral_norm, old": lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
    "LSTM": lambda: nn.LSTM(4, 4, batch_first=True),
    "GRU": lambda: nn.GRU(4, 4, batch_first=True),
    "attention": Attention,
    "multi-head attention": SelfAttention,
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True),
    "stateful cell": Stateful,
    "tied weights": Tied,
    "batch norm": lambda: nn.Sequential(nn.Flatten(0, 1), nn.BatchNorm1d(4), nn.Tanh(), nn.Unflatten(0, (6, 5))),
    "embedding": lambda: Lookup(sparse=False),
    "sparse embedding": lambda: Lookup(sparse=True),
}


def build(name: str, training: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = Head(BODIES[name]()).double().train(training)
    if name == "stateful cell":
        model.body.h = torch.zeros(6, 4, dtype=torch.float64)
    if name == "spectral_norm, old":
        model.eval()  # its power iteration moves with every run in training
    model(X)  # one run, as after training
    return model


def loss(m: nn.Module) -> Tensor:
    return F.cross_entropy(m(X), Y)


def state_of(model: nn.Module) -> list:
    """Everything a module holds, by identity and value."""
    held = [(id(v), v.detach().clone()) for part in model.modules() for v in vars(part).values() if torch.is_tensor(v)]
    plain = [repr(v) for part in model.modules() for v in vars(part).values() if isinstance(v, int | float | bool)]
    named = [(n, id(t), t.detach().clone(), t.requires_grad) for n, t in [*model.named_parameters()]]
    buffers = [(n, id(t), t.clone()) for n, t in model.named_buffers()]
    return [held, plain, named, buffers]


def same(a: object, b: object) -> bool:
    if torch.is_tensor(a):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def by_differences(model: nn.Module) -> Tensor:
    """The Hessian from gradients of plain backward passes at moved weights."""
    params = [p for p in model.parameters() if p.requires_grad]
    found = [(part, dict(vars(part))) for part in model.modules()]
    buffers = [(b, b.clone()) for b in model.buffers()]

    def gradient() -> Tensor:
        model.zero_grad()
        loss(model).backward()
        g = torch.cat([p.grad.to_dense().flatten().clone() for p in params])
        for part, attributes in found:
            vars(part).update({k: v for k, v in attributes.items() if not k.startswith("_")})
        for b, value in buffers:
            b.copy_(value)
        return g

    columns, step = [], 1e-5
    for p in params:
        for i in range(p.numel()):
            moved = []
            for sign in (1, -1):
                with torch.no_grad():
                    p.view(-1)[i] += sign * step
                moved.append(gradient())
                with torch.no_grad():
                    p.view(-1)[i] -= sign * step
            columns.append((moved[0] - moved[1]) / (2 * step))
    model.zero_grad()
    return torch.stack(columns)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", BODIES)
def test_the_hessian_of_any_module_is_that_of_differences_and_the_module_is_left_as_found(name, training):
    model = build(name, training)
    before, state = state_of(model), torch.get_rng_state()
    operator = ModuleProducts(model, loss)
    got = operator(torch.eye(operator.size, dtype=torch.float64))
    found = module_sharpness(model, loss, top=2, tol=1e-8)
    assert same(state_of(model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    H = by_differences(model)
    assert distance(got, H) < 1e-7
    torch.testing.assert_close(found.eigenvalues, torch.linalg.eigvalsh(got)[-2:].flip(0), rtol=1e-6, atol=1e-9)
    assert found.eigenvalues[0] > 0.1


def test_a_loss_may_reach_the_module_by_another_name():
    model = build("linear")
    expected = module_sharpness(model, loss, top=3)
    outer = module_sharpness(model, lambda m: F.cross_entropy(model(X), Y), top=3)
    assert torch.equal(outer.eigenvalues, expected.eigenvalues)
    assert expected.eigenvalues[0] > 0.1
    operators = [ModuleProducts(model, f) for f in (loss, lambda m: F.cross_entropy(model(X), Y))]
    assert trace(operators[0]).value == trace(operators[1]).value
    assert torch.equal(density(operators[0]).nodes, density(operators[1]).nodes)


MODEL = build("linear")
OTHER = copy.deepcopy(MODEL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda m: F.cross_entropy(OTHER(X), Y), r"reaches no weight of the block \(body.weight, .*of another model"),
        (lambda m: F.cross_entropy(m(X).detach(), Y), "depends on no weight that autograd knows: is it detached"),
        (lambda m: F.cross_entropy(m(X), Y).detach(), "depends on no weight"),
        (torch.no_grad()(loss), "depends on no weight"),
        (lambda m: F.cross_entropy(m(X), Y).item(), "must return a tensor of one number, got float"),
        (lambda m: F.cross_entropy(m(X), Y, reduction="none"), r"one number, got a tensor \[6\]: take its mean"),
        (lambda: F.cross_entropy(MODEL(X), Y), "a function of the module alone"),
        (lambda m, x: F.cross_entropy(m(x), Y), "a function of the module alone"),
    ],
)
@pytest.mark.parametrize(
    "measure",
    [module_sharpness, lambda m, f: density(ModuleProducts(m, f)), lambda m, f: trace(ModuleProducts(m, f))],
    ids=["sharpness", "density", "trace"],
)
def test_losses_that_are_no_function_of_the_weights_are_refused(measure, wrong, message):
    with pytest.raises(BpgenError, match=message):
        measure(MODEL, wrong)


def test_a_block_that_the_loss_does_not_reach_is_refused_and_a_part_of_one_is_not():
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(4, 3)}).double()

    def of_one(m: nn.Module) -> Tensor:
        return F.cross_entropy(m["used"](X[:, 0]), Y)

    with pytest.raises(BpgenError, match=r"reaches no weight of the block \(unused.weight\)"):
        ModuleProducts(model, of_one, "unused.weight")
    both, one = module_sharpness(model, of_one), module_sharpness(model, of_one, ["used.weight", "used.bias"])
    assert both.eigenvalues.item() == pytest.approx(one.eigenvalues.item())
    assert both.eigenvalues.item() > 0.1


def test_a_loss_that_is_linear_in_the_block_has_no_curvature():
    found = module_sharpness(MODEL, lambda m: m.out.bias.sum(), "out.bias")
    assert found.eigenvalues.item() == 0


def test_frozen_weights_are_no_part_of_all_and_can_be_asked_for_by_name():
    model = build("linear")
    whole = ModuleProducts(model, loss)
    H = whole(torch.eye(whole.size, dtype=torch.float64))
    model.body.requires_grad_(False)
    part = ModuleProducts(model, loss)
    inside = torch.arange(whole.size) >= 20
    assert distance(part(torch.eye(part.size, dtype=torch.float64)), H[inside][:, inside]) < 1e-12
    named = ModuleProducts(model, loss, ["body.weight", "body.bias"])
    assert distance(named(torch.eye(20, dtype=torch.float64)), H[:20, :20]) < 1e-12
    model.requires_grad_(False)
    with pytest.raises(BpgenError, match="every weight is frozen: name those"):
        ModuleProducts(model, loss)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, above):
        return above * ctx.saved_tensors[0].cos()


class OnceOnly(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return _Once.apply(super().forward(x))


def test_modules_that_cannot_be_measured_are_refused():
    with pytest.raises(BpgenError, match=r"out\.weight.*a lazy module"):
        ModuleProducts(nn.ModuleDict({"out": nn.LazyLinear(3)}), lambda m: m["out"](X.float()).sum())
    with pytest.raises(BpgenError, match="cannot be differentiated twice: a function of it is marked @once"):
        ModuleProducts(Head(OnceOnly(4, 4)).double(), loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.Linear(4, 3).double(), X)
    with pytest.raises(BpgenError, match="scripted"):
        ModuleProducts(scripted, lambda m: m(X).square().mean())


class _Doubtful(torch.autograd.Function):
    """W exp(b); what it hands back for W forgets that it depends on b."""

    @staticmethod
    def forward(ctx, W, b):
        ctx.save_for_backward(W, b)
        return W * b.exp()

    @staticmethod
    def backward(ctx, above):
        W, b = ctx.saved_tensors
        return above * b.detach().exp(), (above * W * b.exp()).sum(0)


class Doubtful(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, _Doubtful.apply(self.weight, self.bias)))


def test_a_wrong_second_derivative_inside_is_noticed_where_it_breaks_the_symmetry():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"uᵀHv and vᵀHu of this module differ by"):
        ModuleProducts(Head(Doubtful(4, 4)).double(), loss)


def test_later_training_and_what_is_drawn_do_not_change_the_operator():
    model = Head(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))).double()
    operator = ModuleProducts(model, loss)
    v = randn(0, operator.size)
    before = operator(v)
    with torch.no_grad():
        model.out.weight.mul_(2)
    assert torch.equal(operator(v), before)
    assert not torch.equal(ModuleProducts(model, loss)(v), before)
