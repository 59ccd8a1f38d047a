# The commands of this project; each is a plain command that works without `just`.

# install for development (install a CPU build of torch first if you want one)
install:
    pip install -e '.[dev]'

# what CI runs, without the installation
check: lint test

lint:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

test:
    pytest

# tests that take minutes
slow:
    pytest -m slow

# a study on a SLURM that is started on this machine (root; Debian's slurm-wlm and munge)
slurm:
    pytest -s -m slurm tests/study/test_slurm.py

# measure again what `bpgen rules --traits` marks as audited
locality:
    bpgen check --locality all --json > locality.json
    mv locality.json bpgen/conformance/locality.json

# break runs in every way that is known, and print what was lost (minutes)
faults:
    python -m tests.faults

# known vulnerabilities of the dependencies; says so where no advisory service can be reached
audit:
    .ci/audit

# the README's table and the overview, from the verdicts in notebooks/results
readme-table:
    python notebooks/results/readme_table.py

bench:
    bpgen bench

format:
    ruff check --fix .
    ruff format .
