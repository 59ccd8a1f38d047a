"""Many runs that answer a question: plan, tune, launch, collect, statistics, verdicts, figures, report.

Every run is an ordinary `bpgen fit` run with its resolved config and its own folder; nothing here trains by itself.
"""
