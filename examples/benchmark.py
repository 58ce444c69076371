"""Measure how fast this package is, beside others that do the same: `optical-hf benchmark`.

    python examples/benchmark.py --only step transport --output_dir benchmark

`optical_hf.commands.benchmark` says more.
"""

import sys

from optical_hf.commands.benchmark import main
from optical_hf.launching import run

if __name__ == "__main__":
    run(main, sys.argv[1:])
