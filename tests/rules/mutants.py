"""Three good rules as strangers write them, and deliberately wrong ones: each has one mistake, made on one line."""

from __future__ import annotations

from dataclasses import replace

import torch
from bpgen_rules.eprop_online import EPropOnline

from bpgen.errors import BpgenError
from bpgen.rules import (
    Feedback,
    OfflineRule,
    OnlineRule,
    Rule,
    RuleGradients,
    Traits,
    own_influence,
    propagate,
)


class Local(OfflineRule):
    """Own-path credit through random feedback, written out for the leaky potential: right."""

    traits = Traits(
        signal_origin="random feedback",
        signal_scope="broadcast",
        recurrence="diagonal",
        weight_transport=False,
        needs_future=False,
        online=True,
        neurons=("Leaky",),
        exact_when="W_rec = 0 with symmetric feedback",
    )

    def __init__(self):
        super().__init__()
        self.feedback = Feedback("random")

    def bind(self, network, seed=0):
        super().bind(network, seed)
        if network.neuron.leak != "potential":
            raise BpgenError("derived for the leak on the potential")
        self.feedback.bind(network, seed)
        return self

    def credit(self, trajectory, error):
        q, T, alpha = self.signal(trajectory, error), trajectory.n_steps, trajectory.network.neuron.alpha
        q = torch.cat([q.new_zeros(T - len(q), *q.shape[1:]), q])
        told, later, credits = self.slope(trajectory, q), self.first(q), []
        for t in reversed(range(T)):
            later = told[t] + self.memory(alpha) * later
            credits.append(alpha * later)
        self.last = later
        return torch.stack(credits[::-1]).unsqueeze(-2)

    def signal(self, trajectory, error):
        return self.feedback.signal(trajectory, error)

    def slope(self, trajectory, q):
        return trajectory.local.D.pull(q.unsqueeze(-2), slice(1, trajectory.n_steps + 1)).squeeze(-2)

    def memory(self, alpha):
        return 1 - alpha

    def first(self, q):
        return torch.zeros_like(q[0])


class SignOfTheLeak(Local):
    def memory(self, alpha):
        return alpha - 1


class ForgottenLeak(Local):
    def memory(self, alpha):
        return 0.0


class MissingSlope(Local):
    def slope(self, trajectory, q):
        return q


class ShiftedByOneStep(Local):
    def credit(self, trajectory, error):
        c = super().credit(trajectory, error)
        return torch.cat([c[1:], torch.zeros_like(c[:1])])


class FutureLeak(Local):
    """The slope of the step to come."""

    def slope(self, trajectory, q):
        later = torch.cat([super().slope(trajectory, torch.ones_like(q))[1:], torch.ones_like(q[:1])])
        return q * later


class TraceNotReset(Local):
    last = None

    def first(self, q):
        return super().first(q) if self.last is None else self.last


class ChangesWeightsInPlace(Local):
    def estimate(self, problem, draws):
        problem.params["W_rec"].clamp_(-0.5, 0.5)  # a sensible bound, at the wrong place
        return super().estimate(problem, draws)


class ChangesTheBatchInPlace(Local):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        (problem.x if problem.initial_state is None else problem.initial_state).zero_()
        return result


class ReadsTheModule(Local):
    traits = replace(Local.traits, signal_origin="symmetric", weight_transport=True, exact_when="W_rec = 0")

    def signal(self, trajectory, error):
        return error @ trajectory.network.W_out.detach()


class BPTTInDisguise(Local):
    def credit(self, trajectory, error):
        q = error @ trajectory.params["W_out"]
        return propagate(trajectory, q, carrier=trajectory.params["W_rec"])


class FeedbackTransposed(Local):
    def signal(self, trajectory, error):
        O, N = self.feedback.weight.shape
        return error @ self.feedback.weight.reshape(N, O).T


class DrawsInside(Local):
    def signal(self, trajectory, error):
        q = super().signal(trajectory, error)
        return q + 0.1 * torch.randn_like(q)


class SilentRecurrence(Local):
    traits = replace(Local.traits, exact_when="never")

    def signal(self, trajectory, error):
        return 0 * super().signal(trajectory, error)


class HiddenWeightTransport(Local):
    def signal(self, trajectory, error):
        return super().signal(trajectory, error) + 0.1 * error @ trajectory.params["W_out"]


class CreditCrossesOneSynapse(Local):
    def credit(self, trajectory, error):
        q = self.signal(trajectory, error)
        return propagate(trajectory, q, carrier=trajectory.params["W_rec"], hops=1)


class NormalisedOverTheBatch(Local):
    def signal(self, trajectory, error):
        q = super().signal(trajectory, error)
        return q / q.norm()


class PlainFeedback(Local):
    """Feedback weights in a plain attribute: no checkpoint, and one matrix for all stacked seeds."""

    def bind(self, network, seed=0):
        super().bind(network, seed)
        self.B, self.feedback.weight = self.feedback.weight, None
        return self

    def signal(self, trajectory, error):
        return error @ self.B


class BranchesOnData(Local):
    def signal(self, trajectory, error):
        q = super().signal(trajectory, error)
        return q if float(q.sum()) < 1e9 else 0 * q


class DoublePrecisionInside(Local):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(grads={n: g.double() for n, g in result.grads.items()})


class ForgetsTheRegulariser(Local):
    def gradients(self, problem, draws=()):
        result, l2 = super().gradients(problem.without_regulariser(), draws), problem.loss.regulariser
        return result._replace(loss=result.loss + (l2.value(problem.params) if l2 else 0))


class LossOfItsOwn(Local):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(loss=result.loss / problem.n_steps)


class FillsTheDiagonal(Local):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        grads = {**result.grads, "W_rec": result.grads["W_rec"] + 1e-3}
        return result._replace(grads=grads)


class RoughReadout(Local):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(grads={**result.grads, "W_out": 1.1 * result.grads["W_out"]})


class TakesEveryNeuron(Local):
    def bind(self, network, seed=0):
        self.feedback.bind(network, seed)
        return self


class Misshapen(Local):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(grads={n: g for n, g in result.grads.items() if n != "initial_state"})


class UnfilteredError(Local):
    """The leaky readout's own filter forgotten on the way back."""

    def credit(self, trajectory, error):
        kappa = trajectory.network.kappa
        if kappa:
            later = torch.cat([error[1:], torch.zeros_like(error[:1])])
            error = (error - kappa * later) / (1 - kappa)
        return super().credit(trajectory, error)


class Perturbation(Rule):
    """Weight perturbation in both directions: right."""

    traits = Traits(
        signal_origin="perturbation",
        signal_scope="broadcast",
        recurrence="none",
        weight_transport=False,
        stochastic=True,
        unbiased=True,
        exact_readout=False,
    )
    sigma, factor = 1e-3, 1.0

    def draw(self, network, x, random):
        shapes = {n: p.shape for n, p in network.named_parameters()}
        return {f"xi {n}": torch.randn(s, generator=random, dtype=torch.float64).to(x) for n, s in shapes.items()}

    def estimate(self, problem, draws):
        masks, params = problem.network.masks(), problem.params
        xi = {n: draws[f"xi {n}"] * masks.get(n, 1) for n in params}

        def moved(step):
            there = problem.at(**{n: w + step * xi[n] for n, w in params.items()})
            run = there.run()
            return there.value_and_error(run)[0], run.outputs

        (value, y), (up, _), (down, _) = (moved(step) for step in (0.0, self.sigma, -self.sigma))
        grads = {n: self.factor * (up - down) / (2 * self.sigma) * xi[n] for n in params}
        return RuleGradients(value, y, grads, {})


class BiasedPerturbation(Perturbation):
    factor = 1.3


class Trace(OnlineRule):
    """Eligibility trace times symmetric feedback, forward in time: right."""

    traits = Traits(
        signal_scope="broadcast", recurrence="diagonal", needs_future=False, online=True, exact_when="W_rec = 0"
    )

    def start(self, network, params, batch):
        vector = own_influence(network, params, batch).unsqueeze(2).repeat(1, 1, network.n_rec, 1)
        return {"vector": vector, "trace": torch.zeros_like(vector[:, 0])}

    def step(self, state, moment):
        before = self.before(state)
        direct = moment.direct.unsqueeze(2).expand(-1, -1, before.shape[2], -1)
        vector = moment.own(before) + moment.drive(direct)
        trace = moment.kappa * state["trace"] + (1 - moment.kappa) * moment.read(vector)
        state = self.after(state, vector, trace)
        if moment.error is None:
            return state, {}
        q = moment.error @ moment.params["W_out"]
        return state, moment.gradient(torch.einsum("bn,bnx->nx", q, trace))

    def before(self, state):
        return state["vector"]

    def after(self, state, vector, trace):
        return {"vector": vector, "trace": trace}


class TraceInAnAttribute(Trace):
    """Reset at the start of a sequence, but lost when another one comes in between."""

    def start(self, network, params, batch):
        state = super().start(network, params, batch)
        self.vector = state["vector"]
        return state

    def before(self, state):
        return self.vector

    def after(self, state, vector, trace):
        self.vector = vector
        return super().after(state, vector, trace)


class RemembersEverything(Trace):
    def after(self, state, vector, trace):
        past = [state["past"]] if "past" in state else []
        return {"vector": vector, "trace": trace, "past": torch.cat([*past, trace.unsqueeze(0)])}


class ForgetsTheActivity(OfflineRule):
    """BPTT that adds the cost of the activity to the loss and not to the learning signal."""

    traits = Traits(exact_when="always")

    def estimate(self, problem, draws):
        result = super().estimate(replace(problem, loss=replace(problem.loss, activity=None)), draws)
        return result if problem.loss.activity is None else result._replace(loss=result.loss + 1)

    def credit(self, trajectory, error):
        return propagate(trajectory, error @ trajectory.params["W_out"], carrier=trajectory.params["W_rec"])


class AlphaOfItsOwn(Local):
    """The leak's complement of another network, typed in by hand."""

    def credit(self, trajectory, error):
        credit = super().credit(trajectory, error)
        return 0.5 * (credit if isinstance(credit, torch.Tensor) else credit.currents)


class LearnsInSilence(Local):
    """Feedback weights that follow the readout (Kolen and Pollack 1994), which the traits do not say."""

    def learn(self, aux):
        self.feedback.weight = 0.9 * self.feedback.weight


class SilentAboutFeedback(Local):
    """Random feedback weights, and a limit that does not mention them."""

    traits = replace(Local.traits, exact_when="W_rec = 0")


class ForgetsWhatCameIn(EPropOnline):
    """A block that starts from no trace."""

    def block(self, state, steps):
        return super().block({n: torch.zeros_like(v) for n, v in state.items()}, steps)


class LeavesTimeConstantsAlone(Local):
    """What neurons learn gets a gradient of zero."""

    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        kept = {n: torch.zeros_like(g) if n == "alpha_logit" else g for n, g in result.grads.items()}
        return result._replace(grads=kept)
