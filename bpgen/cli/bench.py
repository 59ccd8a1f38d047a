"""`bpgen bench`: how fast the rules are, as ratios to peers measured in the same run."""

from __future__ import annotations

import os
import sys

from bpgen.cli.listing import Parser
from bpgen.errors import require


def run(argv: list[str]) -> int:
    """Run the benchmark and print its table."""
    options = _parser().parse_args(argv)
    counts = [options.rounds, *options.threads, *(options.seeds or ())]
    require(min(counts) >= 1, "rounds, threads and seeds must be positive.")
    if options.peers and options.threads[0] == 1:  # JAX reads it once, when it starts
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    from bpgen import bench
    from bpgen.bench import curvature, online, seeds, side_by_side, trainer, whole

    print("measuring ...", file=sys.stderr)
    if options.curvature:
        found = curvature.rows(options.threads[0], options.rounds)
        growth = curvature.memory_growth()
        print(curvature.to_json(found, growth) if options.json else curvature.table(found, growth))
        return 0
    if options.peers:
        beside = side_by_side.rows(options.threads[0], options.rounds)
        print(bench.to_json(beside) if options.json else side_by_side.table(beside))
        return 0
    if options.seeds is not None:
        at_once = seeds.rows(options.seeds or [8], options.threads[-1], options.rounds, options.accelerator)
        print(bench.to_json(at_once) if options.json else seeds.table(at_once))
        return 0
    if options.whole:
        commands = whole.rows(rounds=min(options.rounds, 3))
        print(bench.to_json(commands) if options.json else whole.table(commands))
        return 0
    if options.online:
        steps_in_n = online.run(rounds=min(options.rounds, 8))
        print(online.to_json(steps_in_n) if options.json else online.table(steps_in_n))
        return 0
    rules = bench.run(threads=options.threads, rounds=options.rounds)
    steps = trainer.rows(threads=options.threads, rounds=options.rounds)
    print(bench.to_json([*rules, *steps]) if options.json else f"{bench.table(rules)}\n\n{trainer.table(steps)}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="bpgen bench",
        description="Time every rule against torch.nn.RNN, an autograd loop of the same model, and its own floor "
        "(forward loop + backward loop + weight products), interleaved in one run; ratios of minima. Half a minute on "
        "an idle machine; beside another busy process torch's threads wait for each other: many times that.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=15, help="rounds to take the minimum of (default: 15)")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="thread counts (default: 2 1)")
    parser.add_argument(
        "--online", action="store_true", help="measure the online rules instead: memory in time, cost of a step in N"
    )
    parser.add_argument(
        "--curvature",
        action="store_true",
        help="measure curvature instead: products and eigenvalues against double backward and PyHessian, and memory "
        "(several minutes; the first thread count only)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="*",
        metavar="S",
        help="measure so many seeds trained at once instead (default: 8), against each trained alone (a minute; the "
        "last thread count only)",
    )
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu", help="where seeds are trained")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="measure whole commands instead, each a process of its own: a misspelt name, help and a run beside the "
        "import of Lightning, a run beside a busy process, eight seeds at once against eight alone (five minutes)",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="measure online rules, spiking and gated networks beside jitted JAX scans (pip install jax; the CPU build "
        "is enough), torch's own cells and double backward (a minute; the first thread count only)",
    )
    return parser
