"""Rules that a stranger may have written: they exit, raise, lie or change what is not theirs."""

RULE = '''"""BPTT by another name, in a file."""
from bpgen.rules import OfflineRule, Traits, propagate
class Half(OfflineRule):
    """Half of the gradient.

    Args:
        factor: what is left of it.
    """
    traits = Traits()
    def __init__(self, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = factor
    def credit(self, trajectory, error):
        params = trajectory.params
        return propagate(trajectory, self.factor * error @ params["W_out"], carrier=params["W_rec"])
class Leaves(Half):
    def credit(self, trajectory, error):
        raise SystemExit(0)
'''
EVIL = (
    RULE
    + """
class Built(Half):
    def __init__(self):
        raise SystemExit(0)
class Bound(Half):
    def bind(self, network, seed=0):
        raise SystemExit(0)
class Wrong(Half):
    def bind(self, network, seed=0):
        return 1 / 0
class Stopped(Half):
    def __init__(self):
        raise KeyboardInterrupt
class InPlace(Half):
    def credit(self, trajectory, error):
        self.net.W_rec.mul_(0.9)
        return super().credit(trajectory, error)
    def bind(self, network, seed=0):
        object.__setattr__(self, "net", network)
        return super().bind(network, seed)
class ByData(Half):
    def estimate(self, problem, draws):
        problem.network.W_rec.data.mul_(0.9)
        return super().estimate(problem, draws)
class Late(Half):
    steps = 0
    def estimate(self, problem, draws):
        Late.steps += 1
        if Late.steps > 20:
            problem.network.W_out.add_(0.1)
        return super().estimate(problem, draws)
class Double(Half):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(grads={n: g.double() for n, g in result.grads.items()})
class Names(Half):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(grads={n + "_": g for n, g in result.grads.items()})
class Shapes(Half):
    def estimate(self, problem, draws):
        result = super().estimate(problem, draws)
        return result._replace(grads={n: g[None] for n, g in result.grads.items()})
class Nothing(Half):
    def estimate(self, problem, draws):
        return super().estimate(problem, draws)._replace(grads=dict.fromkeys(problem.params))
class NoResult(Half):
    def estimate(self, problem, draws):
        return None
class NotANumber(Half):
    def credit(self, trajectory, error):
        return super().credit(trajectory, error * float("nan"))
class Slow(Half):
    def credit(self, trajectory, error):
        import time
        time.sleep(0.2)
        return super().credit(trajectory, error)
class Bare(Half):
    def __init__(self):
        self.factor = 1.0
class Gone(Half):
    def credit(self, trajectory, error):
        raise GeneratorExit("gone")
"""
)

RULES = {  # what each is told; nothing is wrong with one that is slow
    "Built": "cannot be built with its defaults: SystemExit: 0",
    "Bound": "rule Bound failed: SystemExit: 0",
    "Wrong": "rule Wrong failed: ZeroDivisionError: division by zero",
    "InPlace": "it changed W_rec in place. A rule returns gradients",
    "ByData": "it changed W_rec in place",
    "Double": "torch.float32, like the parameter; it is",
    "Names": "the gradient of W_rec must be",
    "Shapes": "like the parameter; it is [1, ",
    "Nothing": "like the parameter; it is None",
    "NoResult": "`estimate` must return RuleGradients(loss, outputs, grads), got NoneType",
    "NotANumber": "was nan although the loss was finite",
    "Bare": "its __init__ has to call super().__init__() first",
    "Gone": "rule Gone failed: GeneratorExit: gone",
    "Leaves": "rule Leaves failed: SystemExit: 0",
}
HANGING = ("waits", "turns")
IMPORTS = {  # what a file holds, and what is said of its class X
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "gone": ("raise GeneratorExit('gone')", "GeneratorExit: gone"),
    "waits": ("import time; time.sleep(10**6)", "ImportTimeout: its import had not ended after"),
    "turns": ("while True: pass", "ImportTimeout: its import had not ended after"),
    "no Python": ("def", "SyntaxError"),
    "another name": ("class Y: pass", "has no attribute 'X'"),
    "no class": ("X = 3", "which is not a class"),
    "another class": ("class X: pass", "which is not a bpgen.rules.Rule"),
}
