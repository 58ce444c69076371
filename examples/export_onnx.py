"""Export a student to ONNX: `optical-hf export`.

    pip install "optical-hf[onnx]" && python examples/export_onnx.py yoruba-student yoruba-student-onnx

`optical_hf.export.onnx` says how the graph is run without torch.
"""

import sys

from optical_hf.commands.export import main
from optical_hf.launching import run

if __name__ == "__main__":
    run(main, sys.argv[1:])
