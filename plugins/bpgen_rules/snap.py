"""Sparse n-step approximation of RTRL: influence is kept where it arrives within n steps, and nowhere else.

    (1) S_t[k,p] = [k ∈ R_n(p)] (J_t S_{t-1} + C_t ∂I_t/∂θ_p)[k],   J_t = A_t + C_t W_rec D_{t-1}
    (2) R_n(p): the neurons that a weight onto p has reached after n steps, p itself and all that lie within n-1
        synapses of it; n = 1 keeps p alone
    (3) G_t = κ G_{t-1} + (1-κ) D_t S_t,   ∂L/∂θ = Σ_t (e_t W_out) G_t
Source: Menick et al. 2021, ICLR (arXiv 2006.07232). θ_p are the weights onto p, and its initial state.
Reachability is that of the synapses the network has (its masks), not of weights that happen to be zero: with all-to-all
connections n = 2 is RTRL already. S is stored compactly, R neurons for each p, R the size of the largest R_n(p).
Deviation: an initial state is credited along the same pattern; (3) with κ > 0.
Shapes: S [B,d,R,N,X], X = K(N+I+1) parameters of one neuron.
Cost: N² R² per step and sample (d = K = 1); memory N² R, flat in T.
Exact: n > the longest shortest path between neurons; n = 1 without autapses is `eprop_online`. Neurons: all.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bpgen.rules import (
    Increments,
    Limit,
    Moment,
    Network,
    OnlineRule,
    State,
    Steps,
    Traits,
    own_influence,
    require,
)
from bpgen_rules.eprop_online import EPropOnline


class SnAp(OnlineRule):
    """SnAp-n (Menick 2021): RTRL on the influence that arrives within n steps.

    Args:
        n: number of steps; 1 keeps the influence of a weight on its own neuron, its autapse included.
    """

    trains_neurons = True
    traits = Traits(
        needs_future=False,
        online=True,
        time_per_step="N² R², R neurons within n-1 synapses",
        memory="N² R",
        exact_when=Limit(("always",), condition="with n > diameter of the network"),
        exact_with={"n": 1000},
    )

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        require(n >= 1, f"rule.n must be a positive number of steps, got {n}.")
        self.n = n
        self.alone: OnlineRule | None = None

    def bind(self, network: Network, seed: int = 0) -> "SnAp":
        """See whether an influence ever leaves its neuron."""
        super().bind(network, seed)
        self.alone = EPropOnline() if self.n == 1 and not network.autapses else None
        return self

    filters_back = True

    @property
    def at_once(self) -> bool:
        """As `eprop_online`, where it is that."""
        return self.alone is not None

    def block(self, state: State, steps: Steps) -> tuple[State, Increments]:
        """As `eprop_online`."""
        assert self.alone is not None
        return self.alone.block(state, steps)

    def start(self, network: Network, params: Mapping[str, Tensor], batch: int) -> State:
        """S_0, and the pattern: for each neuron p the R neurons it reaches, p first."""
        if self.alone is not None:
            return self.alone.start(network, params, batch)
        near, kept = self.pattern(network)  # [R,N]
        own = own_influence(network, params, batch)  # [B,d,X]
        first = (torch.arange(len(near), device=near.device) == 0).to(own)
        influence = own[:, :, None, None] * first[:, None, None].expand(-1, network.n_rec, 1)  # [B,d,R,N,X]
        filtered = {"read": torch.zeros_like(influence[:, 0])} if network.kappa else {}
        return {"influence": influence, "near": near, "kept": kept.to(own), **filtered}

    def pattern(self, network: Network) -> tuple[Tensor, Tensor]:
        """Equation (2): see `reached`."""
        return reached(network, self.n)

    def step(self, state: State, moment: Moment) -> tuple[State, Increments]:
        """Equations (1) to (3), on gathered gains and weights."""
        if self.alone is not None:
            return self.alone.step(state, moment)
        S, near, kept = state["influence"], state["near"], state["kept"]
        A, C = moment.A[..., near], moment.C[..., near]  # [B,d,·,R,N]
        W = moment.params["W_rec"].unflatten(0, moment.I.shape[1:])[:, near.unsqueeze(1), near]  # [K,R,R,N]
        activity = (moment.D_before[..., near].unsqueeze(-1) * S).sum(1)  # [B,R,N,X]
        currents = torch.einsum("crsp,bspx->bcrpx", W, activity)
        direct = moment.of_each.unsqueeze(2).expand(-1, -1, -1, near.shape[1], -1)  # [B,K,1,N,X]
        currents = torch.cat([currents[:, :, :1] + direct, currents[:, :, 1:]], dim=2)
        S = (A.unsqueeze(-1) * S.unsqueeze(1)).sum(2) + (C.unsqueeze(-1) * currents.unsqueeze(1)).sum(2)
        S = S * kept.unsqueeze(-1)
        G = (moment.D[..., near].unsqueeze(-1) * S).sum(1)  # [B,R,N,X]
        if moment.kappa:
            G = moment.kappa * state["read"] + (1 - moment.kappa) * G
        state = {"influence": S, "near": near, "kept": kept, **({"read": G} if moment.kappa else {})}
        if moment.error is None:
            return state, {}
        q = (moment.error @ moment.params["W_out"])[:, near]  # [B,R,N]
        return state, moment.gradient(torch.einsum("brp,brpx->px", q, G))


def reached(network: Network, n: int) -> tuple[Tensor, Tensor]:
    """Neurons [R,N] that each neuron p reaches within n-1 synapses, p first, and which of the entries count."""
    N = network.n_rec
    mask = network.masks().get("W_rec")
    synapse = torch.ones(N, N) if mask is None else mask.unflatten(0, (-1, N)).amax(0)  # [post, pre]
    within = torch.eye(N).to(synapse)
    for _ in range(min(n - 1, N)):
        within = (within + synapse @ within > 0).to(synapse)
    return compact(within)


def compact(within: Tensor) -> tuple[Tensor, Tensor]:
    """The ones of each column p of a pattern [N,N] as a list [R,N], p first, and which of its entries count."""
    one = torch.eye(len(within)).to(within)
    order = (within + one).argsort(dim=0, descending=True, stable=True)
    order = order[: int(within.sum(0).max())]
    return order, within.gather(0, order) > 0
