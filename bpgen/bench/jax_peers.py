"""The same gradients by JAX, one jitted scan each, as somebody who knows it would write them; never a dependency.

All take squared errors at all steps. Products with the inputs stand outside the scans, recurrent weights are masked
once a call. The rate networks are leaky with tanh (the potential leaks), the spiking ones LIF with the piecewise linear
surrogate and the detached reset, or ALIF.
    snap_1, snap_1_presynaptic    a trace for every synapse and sample [B,N,X]; and one for every source [B,X], which
                                  is all that SnAp-1 needs where the decay is the same number for all neurons
    rtrl                          the influence [B,N,N,X], one product with the Jacobian a step
    lif_bptt, lif_eprop, alif_*   reverse mode through the scan; for e-prop the recurrent activity is a constant to it
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from bpgen.errors import BpgenError
from bpgen.problem import Problem

Gradients = dict[str, Any]
Scan = Callable[[Gradients, Any, Any], Gradients]


def scan_call(name: str, problem: Problem) -> Callable[[], Gradients]:
    """A scan of this file on a problem's weights and batch; its result is waited for.

    Raises:
        BpgenError: jax is not installed.
    """
    try:
        jax = importlib.import_module("jax")
    except ImportError as error:
        raise BpgenError("this peer needs jax: pip install jax (the CPU build is enough).") from error
    jax.config.update("jax_enable_x64", True)  # float32 stays float32; it allows the check in float64
    params = {n: jax.numpy.asarray(w.numpy()) for n, w in problem.params.items()}
    x, target = (jax.numpy.asarray(t.numpy()) for t in (problem.x, problem.target))
    mask = jax.numpy.asarray(problem.network.masks()["W_rec"].numpy())
    scan = jax.jit(SCANS[name](jax, problem.network.neuron, mask))
    return lambda: jax.block_until_ready(scan(params, x, target))


def _error(p: Gradients, h: Any, target: Any) -> Any:
    """e_t [B,O] of squared errors at all steps."""
    return (h @ p["W_out"].T + p["b_out"] - target) / len(target)


def _forward_rule(jax: Any, neuron: Any, mask: Any, start: Callable[..., Any], step: Callable[..., Any]) -> Scan:
    """A rule that moves along with a leaky network; `step` gives its next trace and the gradients [N,X]."""
    np, a = jax.numpy, neuron.alpha

    def gradients(p: Gradients, x: Any, target: Any) -> Gradients:
        B, N = x.shape[1], len(p["b_rec"])
        W = p["W_rec"] * mask

        def advance(carry: Any, now: Any) -> Any:
            s, h, trace, own, W_out, b_out = carry
            x_t, drive, y = now
            pre, slope_before = np.concatenate([h, x_t, np.ones_like(h[:, :1])], 1), 1 - h * h
            s = (1 - a) * s + a * (drive + h @ W.T)
            h = np.tanh(s)
            e = _error(p, h, y)
            q = (e @ p["W_out"]) * (1 - h * h)
            trace, given = step(trace, pre, q, W, slope_before)
            return (s, h, trace, own + given, W_out + e.T @ h, b_out + e.sum(0)), None

        zero, X = np.zeros((B, N), x.dtype), N + x.shape[2] + 1
        first = (zero, zero, start(B, N, X, x.dtype), np.zeros((N, X), x.dtype), 0 * p["W_out"], 0 * p["b_out"])
        drives = x @ p["W_in"].T + p["b_rec"]
        (_, _, _, own, W_out, b_out), _ = jax.lax.scan(advance, first, (x, drives, target))
        return {"W_rec": own[:, :N] * mask, "W_in": own[:, N:-1], "b_rec": own[:, -1], "W_out": W_out, "b_out": b_out}

    return gradients


def _snap_1(jax: Any, neuron: Any, mask: Any) -> Scan:
    a = neuron.alpha

    def step(trace: Any, pre: Any, q: Any, W: Any, slope: Any) -> Any:
        trace = (1 - a) * trace + a * pre[:, None]
        return trace, (q[:, :, None] * trace).sum(0)

    return _forward_rule(jax, neuron, mask, lambda B, N, X, dtype: jax.numpy.zeros((B, N, X), dtype), step)


def _snap_1_presynaptic(jax: Any, neuron: Any, mask: Any) -> Scan:
    a = neuron.alpha

    def step(trace: Any, pre: Any, q: Any, W: Any, slope: Any) -> Any:
        trace = (1 - a) * trace + a * pre
        return trace, q.T @ trace

    return _forward_rule(jax, neuron, mask, lambda B, N, X, dtype: jax.numpy.zeros((B, X), dtype), step)


def _rtrl(jax: Any, neuron: Any, mask: Any) -> Scan:
    np, a = jax.numpy, neuron.alpha

    def step(S: Any, pre: Any, q: Any, W: Any, slope: Any) -> Any:
        one = np.eye(len(W), dtype=W.dtype)
        J = (1 - a) * one + a * W * slope[:, None]  # [B,N,N]
        S = (J @ S.reshape(*S.shape[:2], -1)).reshape(S.shape) + a * one[:, :, None] * pre[:, None, None]
        return S, np.einsum("bk,bkpx->px", q, S)

    return _forward_rule(jax, neuron, mask, lambda B, N, X, dtype: np.zeros((B, N, N, X), dtype), step)


def _spiking(jax: Any, neuron: Any, mask: Any, hops: bool) -> Scan:
    np, a, theta, gain = jax.numpy, neuron.alpha, neuron.threshold, neuron.gain
    beta, rho = getattr(neuron, "beta", 0.0), getattr(neuron, "rho", 0.0)
    dampening, width = neuron.surrogate._dampening, neuron.surrogate._width

    @jax.custom_vjp
    def spike(u: Any) -> Any:
        return (u > 0).astype(u.dtype)

    def back(u: Any, arriving: Any) -> Any:
        return (arriving * dampening / theta * np.maximum(0, 1 - np.abs(u) / (width * theta)),)

    spike.defvjp(lambda u: (spike(u), u), back)

    def loss(p: Gradients, x: Any, target: Any) -> Any:
        W = p["W_rec"] * mask

        def advance(carry: Any, drive: Any) -> Any:
            v, adapted, z = carry
            seen, adapted = z if hops else jax.lax.stop_gradient(z), rho * adapted + z
            v = (1 - a) * v + gain * (drive + seen @ W.T) - theta * jax.lax.stop_gradient(z)
            z = spike(v - theta - beta * adapted if beta else v - theta)
            return (v, adapted, z), z

        zero = np.zeros((x.shape[1], len(p["b_rec"])), x.dtype)
        _, h = jax.lax.scan(advance, (zero, zero, zero), x @ p["W_in"].T + p["b_rec"])
        return 0.5 * ((h @ p["W_out"].T + p["b_out"] - target) ** 2).sum() / x.shape[1]

    return jax.grad(loss)


SCANS: dict[str, Callable[[Any, Any, Any], Scan]] = {
    "snap_1": _snap_1,
    "snap_1_presynaptic": _snap_1_presynaptic,
    "rtrl": _rtrl,
    "lif_bptt": partial(_spiking, hops=True),
    "lif_eprop": partial(_spiking, hops=False),
    "alif_bptt": partial(_spiking, hops=True),
    "alif_eprop": partial(_spiking, hops=False),
}
