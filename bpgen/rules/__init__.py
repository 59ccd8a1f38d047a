"""The public API for rules: what a plugin imports, and what users call.

A rule answers `gradients(network, params, x, target, loss, draws) -> RuleGradients`. Weights are read from `params`
only, random numbers from `draws` only, in operations that `torch.func.vmap` can batch. There are three ways to write
one, and `bpgen new rule my-rule --style STYLE` writes each as a complete package that trains and passes its tests:

credit     `OfflineRule`: from output error ē [T,B,O] to the credit of every input current, c [T,B,K,N]. The framework
           runs the network and makes weight gradients, Σ_t c_t h_{t-1}ᵀ. The shortest, and fast.

    class SignFeedback(OfflineRule):
        traits = Traits(signal_scope="broadcast", recurrence="diagonal", weight_transport=False)

        def credit(self, trajectory, error):
            q = error @ trajectory.params["W_out"].sign()  # learning signal [T,B,N]
            return propagate(trajectory, q)  # along each neuron's own path; carrier=W_rec, hops=... for more

online     `OnlineRule`: forward in time, with a state that does not grow and no future to look at. `Moment` has the
           linear maps of a step: `own` A_t, `drive` C_t, `read` D_t, `hop` W_rec D_{t-1}.

    class Trace(OnlineRule):
        traits = Traits(signal_scope="broadcast", recurrence="diagonal", online=True, needs_future=False)

        def start(self, network, params, batch):
            vector = own_influence(network, params, batch).unsqueeze(2)  # of a learned initial state
            return {"vector": vector.repeat(1, 1, network.n_rec, 1)}  # [B,d,N,X], X weights of one neuron

        def step(self, state, moment):
            direct = moment.direct.unsqueeze(2).expand(-1, -1, moment.h.shape[1], -1)
            vector = moment.own(state["vector"]) + moment.drive(direct)  # eligibility vectors
            if moment.error is None:  # no loss at this step
                return {"vector": vector}, {}
            q = moment.error @ moment.params["W_out"]  # learning signal [B,N]
            return {"vector": vector}, moment.gradient(torch.einsum("bn,bnx->nx", q, moment.read(vector)))

gradient   `Rule`: all of it, for rules that are not credit.

    class WeightPerturbation(Rule):
        traits = Traits(signal_origin="perturbation", stochastic=True, unbiased=True, exact_readout=False)

        def draw(self, network, x, random):  # the only place where random numbers are drawn
            return {n: torch.randn(p.shape, generator=random).to(x) for n, p in network.named_parameters()}

        def estimate(self, problem, draws):
            def moved(by):
                there = problem.at(**{n: w + by * draws[n] for n, w in problem.params.items()})
                run = there.run()
                return there.value_and_error(run)[0], run.outputs

            (value, outputs), (up, _), (down, _) = moved(0.0), moved(1e-3), moved(-1e-3)
            grads = {n: (up - down) / 2e-3 * draws[n] for n in problem.params}
            return RuleGradients(value, outputs, grads, {})

A rule of any style may learn from batch to batch: it hands out what it learned from in `aux` and takes it over in
`learn`, which whoever trains calls once after each training batch, and never after a measurement. Tensors that it
learns are buffers, so that a checkpoint brings them back, and its traits name them. Feedback that takes the same steps
and the same decay as the readout comes to point along it (Kolen and Pollack 1994; Akrout et al. 2019):

    class KolenPollack(OfflineRule):
        traits = Traits(
            signal_origin="random feedback",
            signal_scope="broadcast",
            recurrence="diagonal",
            weight_transport=False,
            learns=("feedback.weight",),
            exact_when="W_rec = 0 with symmetric feedback",
        )

        def __init__(self, lr: float = 0.1, decay: float = 0.0) -> None:  # those of the readout: optimizer.lr, loss.l2
            super().__init__()
            self.feedback, self.lr, self.decay = Feedback("random"), lr, decay

        def credit(self, trajectory, error):
            credit = propagate(trajectory, self.feedback.signal(trajectory, error))
            readout = torch.einsum("tbo,tbn->on", error, trajectory.h[-len(error) :])  # ∂L/∂W_out = Σ_t ē_t h_tᵀ
            return credit._replace(aux={"readout": readout})

        def learn(self, aux):
            B = self.feedback.weight
            self.feedback.weight = B - self.lr * (aux["readout"] + self.decay * B)

A regulariser of the weights and a given initial state are the framework's business: no rule mentions them. `Traits`
say in data what a rule needs and claims; `bpgen.conformance` (`bpgen check NAME`) holds it to them. All that a rule may
need is importable from here; neurons and their gains are in `bpgen.neurons`.
"""

from bpgen.errors import BpgenError, RuleError, UnstableRuleWarning, choice, require, unknown
from bpgen.losses import Loss
from bpgen.network import Network, Trajectory
from bpgen.network.readout import filtered, filtered_back
from bpgen.problem import Problem
from bpgen.rules.api import gradients, list_rules, load_rule, rule_of
from bpgen.rules.base import Draws, OfflineRule, Rule, RuleGradients
from bpgen.rules.broadcast import Broadcast
from bpgen.rules.cell_types import type_average
from bpgen.rules.chunks import check_chunks, chunk_note, gradients_of_chunk
from bpgen.rules.credit import Credit, weight_gradients
from bpgen.rules.feedback import Feedback, FeedbackName
from bpgen.rules.kernel import hop, learning_signal, propagate
from bpgen.rules.moment import Moment, gradients_of_currents, gradients_of_own, own_influence
from bpgen.rules.online import Carry, Increments, OnlineRule, State
from bpgen.rules.own_path import block_gradients, trace_end, trace_met, trace_start, trace_step, traces_met
from bpgen.rules.steps import Steps
from bpgen.rules.traits import Limit, Traits

__all__ = [
    "BpgenError",
    "Broadcast",
    "Carry",
    "Credit",
    "Draws",
    "Feedback",
    "FeedbackName",
    "Increments",
    "Limit",
    "Loss",
    "Moment",
    "Network",
    "OfflineRule",
    "OnlineRule",
    "Problem",
    "Rule",
    "RuleError",
    "RuleGradients",
    "State",
    "Steps",
    "Traits",
    "Trajectory",
    "UnstableRuleWarning",
    "block_gradients",
    "check_chunks",
    "choice",
    "chunk_note",
    "filtered",
    "filtered_back",
    "gradients",
    "gradients_of_chunk",
    "gradients_of_currents",
    "gradients_of_own",
    "hop",
    "learning_signal",
    "list_rules",
    "load_rule",
    "own_influence",
    "propagate",
    "require",
    "rule_of",
    "trace_end",
    "trace_met",
    "trace_start",
    "trace_step",
    "traces_met",
    "type_average",
    "unknown",
    "weight_gradients",
]
