"""Where the runs of a study are done. A launcher is a class, found by name through the entry points `bpgen.launchers`.

`bpgen study PLAN --engine NAME` chooses one; its constructor's arguments are the options `--engine.ARGUMENT`.
"""

from bpgen.study.launchers.base import Job, JobResult, Launcher, execute

__all__ = ["Job", "JobResult", "Launcher", "execute"]
