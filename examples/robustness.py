"""How much does distillation lose on languages it never saw? `optical-hf study`, in one process or several.

    accelerate launch examples/robustness.py --config examples/robustness/study.yaml --output_dir study

`optical_hf.commands.study` says more.
"""

import sys

from optical_hf.commands.study import main
from optical_hf.launching import run

if __name__ == "__main__":
    run(main, sys.argv[1:])
