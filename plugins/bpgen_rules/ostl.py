"""Online spatio-temporal learning: the influence within a layer is kept whole, and none between layers.

    (1) S_t = J^a_t S_{t-1} + C_t ∂I_t/∂θ,   J^a_t = A_t + C_t W^aa D_{t-1}      of layer a, on θ of its own neurons
    (2) ∂L/∂θ ≈ Σ_t (e_t W_out D_t) S_t                                          and filtered where κ > 0, as in `rtrl`
    recurrence = True: (1), the paper's layers with recurrent weights (its H = ∂s_t/∂h_{t-1} is there);
    recurrence = False: J^a_t = A_t, its layers without: a neuron's own path alone, which is `eprop_online`.
Layers are the areas of a network (`network.areas`), W^aa the weights within one. In the paper the error of step t also
goes down from layer to layer within t. Here activity takes one step from area to area, so within t an area hears the
readout alone: one that the readout does not see learns nothing (`readout: true` may be said of all).
Source: Bohnstingl et al. 2023, IEEE Trans. Neural Netw. Learn. Syst. 34:8894 (arXiv 2007.12723).
What braintrace calls OSTLRecurrent keeps of H the diagonal: it is `snap` with n = 1; its OSTLFeedforward drops A_t,
too: it is `pp_prop` with a decay of (nearly) 0.
Deviation: layers as said; weights onto a neuron from other areas are θ of that neuron; a learned initial state is, too.
Shapes: S [B,d,R,N,X], R neurons in the largest area, X = K(N+I+1) parameters of one neuron.
Cost: N² R² per step and sample (d = K = 1); memory N² R, flat in T.
Exact: one area, with recurrence, where it is `rtrl`; or areas that do not project to each other. Neurons: all.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpgen.rules import Limit, Network, OnlineRule, Traits
from bpgen_rules.eprop_online import EPropOnline
from bpgen_rules.rtrl import RTRL
from bpgen_rules.snap import SnAp, compact


class OSTL(SnAp):
    """Online spatio-temporal learning (Bohnstingl et al. 2023): RTRL within each area, nothing between areas.

    Args:
        recurrence: whether influence travels through the recurrent weights of an area, or a neuron's own path alone.
    """

    suits: ClassVar[Mapping[str, Any]] = {"network.n_rec": 32}  # 128 neurons in one area take hours, as under RTRL
    traits = Traits(
        needs_future=False,
        online=True,
        time_per_step="N² R², R neurons in an area",
        memory="N² R",
        exact_when=Limit(("always",), condition="with one area"),
    )

    def __init__(self, recurrence: bool = True) -> None:
        super().__init__()
        self.recurrence = recurrence
        if not recurrence:
            own_path = EPropOnline.traits
            self.traits = replace(own_path, time_per_step="N²", memory="N²")  # type: ignore[misc]

    def bind(self, network: Network, seed: int = 0) -> "OSTL":
        """See which rule it is where there is one area, or no recurrence."""
        OnlineRule.bind(self, network, seed)
        if not self.recurrence:
            self.alone = EPropOnline()
        else:
            self.alone = RTRL() if len(network.area_names) == 1 else None
        return self

    def pattern(self, network: Network) -> tuple[Tensor, Tensor]:
        """Neurons [R,N] of the area of each neuron p, p first, and which of the entries count."""
        return compact((network.area.unsqueeze(1) == network.area).to(torch.get_default_dtype()))
