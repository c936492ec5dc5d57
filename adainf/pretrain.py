"""Entry point of the pretrain stage for multi-process launchers.

    accelerate launch --multi_gpu --num_processes 2 -m adainf.pretrain RECIPE --run URI --arm adainf

On CPUs, set ACCELERATE_USE_CPU=true: the launcher's own option --cpu ignores --num_processes and starts one process.
"""

import sys

from adainf.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
