"""From a config to an experiment: each part is built once, and all bad input is found here."""

from __future__ import annotations

from bpgen.callbacks import EvaluationClock
from bpgen.errors import BpgenError, RuleError, failure
from bpgen.network import Network
from bpgen.registry import find
from bpgen.rules import Rule, check_chunks
from bpgen.run.config import Config
from bpgen.run.data import remembered
from bpgen.run.experiment import Experiment
from bpgen.run.parts import authored
from bpgen.tasks import Task
from bpgen.tracking.wandb import Tracker
from bpgen.training.data import TaskData
from bpgen.training.module import RuleTraining


def build(config: Config, task: Task | None = None) -> Experiment:
    """Build a run.

    Args:
        config: all of it.
        task: the task of the config, where it is made already.

    Raises:
        BpgenError: bad input, or a part that fails; nothing was written yet.
    """
    try:
        return _built(config, task)
    except (BpgenError, KeyboardInterrupt):
        raise
    except RuleError as error:
        raise BpgenError(f"rule {config.rule.label} failed: {error}") from error
    except BaseException as error:  # a part that exits has failed, not the program
        raise failure(error, authored(config)) from error


def _built(config: Config, task: Task | None) -> Experiment:
    tracker = Tracker.of(config.wandb, config.tracking)
    task = config.make_task() if task is None else task
    config = config.completed(task)
    rule: Rule = config.rule.make()
    network = make_network(config, task)
    module = training(config, network, rule)
    trainer = config.trainer
    trainer.check(module.finished_steps)
    data = TaskData(task, module.loss, trainer.batch_size, config.seed, trainer.chunk, trainer.stream)
    if data.chunk is not None:
        check_chunks(module.rule, module.network)
    data.setup("fit")  # data that are missing or do not fit are found now
    measurements = tuple(find("measurement", name).make(**given) for name, given in config.measurements.items())
    clock = EvaluationClock(**config.evaluation).attach(*measurements)
    experiment = Experiment(config, module, data, clock, measurements, tracker, remembered(config, task))
    clock.check(experiment.start)
    experiment.announcements  # noqa: B018  (a part that cannot describe itself is found now)
    return experiment


def make_network(config: Config, task: Task) -> Network:
    """The network of a config, sized for the task, with the initial weights of the run's seed."""
    return Network(config.neuron.make(), task.n_in, n_out=task.n_out, seed=config.seed, **config.network)


def training(config: Config, network: Network, rule: Rule) -> RuleTraining:
    """Network and rule with the loss and the optimizer of a config.

    Raises:
        BpgenError: they do not fit each other.
    """
    return RuleTraining(network, rule, config.loss.make(), config.optimizer, config.schedule, config.seed)
