"""Measure a retriever on MIRACL, language by language: `optical-hf miracl`, in one process or several.

    accelerate launch examples/evaluate_miracl.py --model yoruba-student --languages sw yo --output_dir miracl

`optical_hf.commands.miracl` says more.
"""

import sys

from optical_hf.commands.miracl import main
from optical_hf.launching import run

if __name__ == "__main__":
    run(main, sys.argv[1:])
