"""Entry point of the evaluate stage for multi-process launchers; the processes share the computation of features.

    accelerate launch --multi_gpu --num_processes 2 -m adainf.evaluate RECIPE --run URI

On CPUs, set ACCELERATE_USE_CPU=true, as for `adainf.pretrain`.
"""

import sys

from adainf.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
