"""The command `optical-hf`: its first word says which of the others is run."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version

from ..launching import run

COMMANDS = {
    "distill": "Distil a retriever into a student that reads another language, from bitext alone.",
    "train": "Train a retriever on queries with passages that answer them.",
    "evaluate": "Measure a retriever on a collection of plain files.",
    "miracl": "Measure a retriever on MIRACL, language by language.",
    "study": "Study what distillation gives and costs on languages with and without bitext.",
    "push": "Push a student or a cross-encoder to the Hub, or the metric as a Space.",
    "export": "Export a student to ONNX, PyLate, or single vectors.",
    "trim": "Trim a model's vocabulary to what some texts use.",
    "index": "Encode a collection into an index on disk.",
    "search": "Search an index.",
    "mine": "Find hard negatives for training rows.",
    "fuse": "Fuse runs into one.",
    "rerank": "Rerank a run by a retriever or a cross-encoder.",
    "train_reranker": "Train a cross-encoder that reranks.",
    "benchmark": "Measure how fast this package is, beside others that do the same.",
}


def main() -> None:
    """Run the command that the command line names."""
    words = sys.argv[1:]
    if words[:1] == ["--version"]:
        print(f"optical-hf {version('optical-hf')}")
    elif not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:16}{what}" for name, what in COMMANDS.items()]
        print("\n".join(["usage: optical-hf COMMAND [--name value ...]", "", *lines, ""]))
        print("`optical-hf COMMAND --help` lists a command's arguments. Several processes or GPUs:")
        print("`accelerate launch -m optical_hf.commands.COMMAND [--name value ...]`.")
    elif words[0] in COMMANDS:
        # Within `run`, since what a command imports may be missing.
        run(lambda words: import_module(f".{words[0]}", __package__).main(words[1:]), words)
    else:
        sys.exit(f"error: there is no command {words[0]!r}; there are {', '.join(COMMANDS)}.")


if __name__ == "__main__":
    main()
