"""Measure a retriever on a collection of plain files: `optical-hf evaluate`, in one process or several.

    python examples/evaluate_retrieval.py --model yoruba-student --document_model intfloat/multilingual-e5-small \
        --topics topics.yo.tsv --passages passages.en.jsonl --qrels qrels.yo.tsv --output_dir measured

`optical_hf.commands.evaluate` says more.
"""

import sys

from optical_hf.commands.evaluate import main
from optical_hf.launching import run

if __name__ == "__main__":
    run(main, sys.argv[1:])
