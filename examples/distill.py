"""Distil a retriever into a student that reads another language, from bitext alone.

    accelerate launch examples/distill.py

Without arguments this is the quickstart. It is `optical-hf distill`, and `optical_hf.commands.distill` says more.
"""

import sys

from optical_hf.commands.distill import main
from optical_hf.launching import run

if __name__ == "__main__":
    run(main, sys.argv[1:])
