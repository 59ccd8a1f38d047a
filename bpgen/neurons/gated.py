"""Gated neurons, GRU and LSTM, numerically the cells of torch.nn.GRU and torch.nn.LSTM (the cuDNN forms).

σ is the logistic function; I^k is block k of the current I_t [B,K,N], in torch's own order of the gates.
GRU, d = 1 and K = 4 with currents (r, z, a, u), where a reads the input alone and u the activity alone:
    (1) r = σ(I^r),  z = σ(I^z)              reset gate; update gate, z = 1 keeps
    (2) n = tanh(I^a + r I^u)                candidate: the reset gate multiplies W_u h_{t-1} + b_u
    (3) s_t = (1-z) n + z s_{t-1},           h_t = s_t
LSTM, d = 2 with states (h, c) and K = 4 with currents (i, f, g, o):
    (4) c_t = σ(I^f) c_{t-1} + σ(I^i) tanh(I^g)
    (5) h_t = σ(I^o) tanh(c_t)               a state, because o_t depends on I_t; h_{t-1} enters by currents alone
Their derivatives, with n' = (1-z)(1-n²) and m = 1 - tanh(c_t)²:
    (6) GRU   A = z      C = (n' I^u r(1-r), (s_{t-1}-n) z(1-z), n', n' r)      D = 1
    (7) LSTM  A = [[0, o m f], [0, f]]       D = (1, 0)
              C_c = (i(1-i) g, f(1-f) c_{t-1}, i(1-g²), 0)      C_h = o m C_c + (0, 0, 0, o(1-o) tanh c_t)
Sources: (1) to (3) Cho et al. 2014, EMNLP, eq. 5 to 8, but their reset gate multiplies h_{t-1} before the matrix
product; (4), (5) Hochreiter & Schmidhuber 1997, Neural Comput. 9:1735, with the forget gate of Gers et al. 2000,
Neural Comput. 12:2451.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpgen.neurons.base import Neuron, Recording
from bpgen.neurons.gain import Dense, Local, Scale


class GRU(Neuron):
    """Gated recurrent unit: one state h, four currents (reset, update, candidate's input, candidate's recurrence).

    As in Cho et al. 2014, z = 1 keeps the state. The reset gate multiplies the recurrent current of the candidate
    and not the activity before its matrix product, so that every neuron is driven by currents alone. W_rec [4·N,N]
    has no third block and W_in [4·N,I] no fourth one; a network masks them, and counts no weight there. Their
    biases both exist: b_rec [4·N].
    """

    n_currents = 4
    recurrent_currents = (0, 1, 3)
    input_currents = (0, 1, 2)
    derivatives_agree = True

    def __init__(self) -> None:
        super().__init__()

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equations (1) to (3)."""
        _, z, n = _gru_gates(I)
        return torch.lerp(n, s.squeeze(-2), z).unsqueeze(-2)

    def g(self, s: Tensor) -> Tensor:
        """The state itself."""
        return s.squeeze(-2)

    @property
    def in_place(self) -> bool:
        """Of this class alone: what another one makes of `f` is not known here."""
        return type(self).f is GRU.f and type(self).g is GRU.g

    def state_buffer(self, drive: Tensor, h: Tensor) -> Tensor:
        """The state is the activity."""
        return h

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Equations (1) to (3); r, z, n and I^u are left in I."""
        I[:, :2].sigmoid_()
        r, z, n, u = I.unbind(1)
        n.addcmul_(r, u).tanh_()
        torch.lerp(n, before, z, out=h)

    def retreat_into(self, arriving: Tensor, later: Tensor, left: Tensor, before: Tensor, s: Tensor, c: Tensor) -> None:
        """Equation (6)."""
        (r, z, n, u), (c_r, c_z, c_a, c_u) = left.unbind(1), c.unbind(1)
        credit, spare = later.squeeze(1), arriving
        credit.add_(arriving)
        torch.addcmul(credit, credit, z, value=-1, out=spare)  # what the candidate is told, (1-z) λ
        _through_tanh(spare, n, c_a)
        torch.mul(c_a, r, out=c_u)
        torch.mul(c_a, u, out=spare)
        _through_sigmoid(spare, r, c_r)
        torch.sub(before, n, out=spare).mul_(credit)
        _through_sigmoid(spare, z, c_z)
        credit.mul_(z)

    def local(self, recording: Recording) -> Local:
        """Equation (6); see `Neuron.local`."""
        currents, before = recording.currents, _before(recording.states).squeeze(-2)
        r, z, n = _gru_gates(currents)
        slope = (1 - z) * (1 - n * n)
        C = torch.stack(
            [slope * currents[..., 3, :] * r * (1 - r), (before - n) * z * (1 - z), slope, slope * r], dim=-2
        )
        return Local(Dense(z[..., None, None, :]), Dense(C.unsqueeze(-3)), Scale(1.0))


class LSTM(Neuron):
    """Long short-term memory: states (h, c), four currents (input gate, forget gate, cell input, output gate).

    Its states [B,2,N], an initial one included, hold the activity h first and the cell c second. Biases start at
    zero, the forget gate's too.
    """

    n_states = 2
    n_currents = 4
    derivatives_agree = True

    def __init__(self) -> None:
        super().__init__()

    def f(self, s: Tensor, I: Tensor) -> Tensor:
        """Equations (4), (5)."""
        i, f, g, o = _lstm_gates(I)
        c = f * s[..., 1, :] + i * g
        return torch.stack([o * torch.tanh(c), c], dim=-2)

    def g(self, s: Tensor) -> Tensor:
        """The first state."""
        return s[..., 0, :]

    @property
    def in_place(self) -> bool:
        """Of this class alone: what another one makes of `f` is not known here."""
        return type(self).f is LSTM.f and type(self).g is LSTM.g

    def advance_into(self, I: Tensor, before: Tensor, s: Tensor, h: Tensor) -> None:
        """Equations (4), (5); i, f, g and o are left in I."""
        I[:, :2].sigmoid_()
        i, f, g, o = I.unbind(1)
        g.tanh_()
        o.sigmoid_()
        c = s[:, 1]
        torch.mul(f, before[:, 1], out=c).addcmul_(i, g)
        torch.tanh(c, out=h).mul_(o)
        s[:, 0] = h

    def retreat_into(self, arriving: Tensor, later: Tensor, left: Tensor, before: Tensor, s: Tensor, c: Tensor) -> None:
        """Equation (7)."""
        (i, f, g, o), (c_i, c_f, c_g, c_o) = left.unbind(1), c.unbind(1)
        credit, squashed = later[:, 1], torch.tanh(s[:, 1])
        spare = arriving * squashed
        _through_sigmoid(spare, o, c_o)
        torch.mul(arriving, o, out=spare)
        _through_tanh(spare, squashed, spare)
        credit.add_(spare)  # of the cell, by h_t and by c_{t+1}
        for other, gate, through, to in (
            (g, i, _through_sigmoid, c_i),
            (before[:, 1], f, _through_sigmoid, c_f),
            (i, g, _through_tanh, c_g),
        ):
            torch.mul(credit, other, out=spare)
            through(spare, gate, to)
        credit.mul_(f)

    def local(self, recording: Recording) -> Local:
        """Equation (7); see `Neuron.local`."""
        i, f, g, o = _lstm_gates(recording.currents)
        before, squashed = _before(recording.states)[..., 1, :], torch.tanh(recording.states[..., 1, :])
        slope, zero = o * (1 - squashed * squashed), torch.zeros_like(o)  # slope: ∂h_t/∂c_t
        c_by_I = torch.stack([i * (1 - i) * g, f * (1 - f) * before, i * (1 - g * g)], dim=-2)  # of i, f, g
        h_by_o = o * (1 - o) * squashed
        h_by_I = torch.cat([slope.unsqueeze(-2) * c_by_I, h_by_o.unsqueeze(-2)], dim=-2)
        C = torch.stack([h_by_I, torch.cat([c_by_I, zero.unsqueeze(-2)], dim=-2)], dim=-3)
        A = torch.stack([torch.stack([zero, slope * f], dim=-2), torch.stack([zero, f], dim=-2)], dim=-3)
        D = torch.stack([torch.ones_like(o), zero], dim=-2).unsqueeze(-3)
        return Local(Dense(A), Dense(C), Dense(D))


def _through_sigmoid(u: Tensor, o: Tensor, out: Tensor) -> None:
    """σ' u at the output o, into `out`."""
    torch.ops.aten.sigmoid_backward.grad_input(u, o, grad_input=out)


def _through_tanh(u: Tensor, o: Tensor, out: Tensor) -> None:
    """tanh' u at the output o, into `out`."""
    torch.ops.aten.tanh_backward.grad_input(u, o, grad_input=out)


def _before(states: Tensor) -> Tensor:
    """s_{t-1} in the place of s_t; entry 0 has no predecessor and is never asked for."""
    return torch.cat([states[:1], states[:-1]])


def _gru_gates(I: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """r, z and n of equations (1), (2), each [...,N]."""
    r, z = torch.sigmoid(I[..., :2, :]).unbind(-2)
    return r, z, torch.tanh(I[..., 2, :] + r * I[..., 3, :])


def _lstm_gates(I: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gates i, f, o and the cell input g as (i, f, g, o), each [...,N]."""
    i, f, g, o = I.unbind(-2)
    return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
