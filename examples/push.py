"""Push a student on disk to the Hub, or the metric as a Space: `optical-hf push`.

    python examples/push.py yoruba-student me/yoruba-student --private
    python examples/push.py --space me/miracl_ndcg

`optical_hf.commands.push` says more.
"""

import sys

from optical_hf.commands.push import main
from optical_hf.launching import run

if __name__ == "__main__":
    run(main, sys.argv[1:])
