"""The pretrain stage for a launcher of several processes.

    accelerate launch --multi_gpu --num_processes 2 -m adainf.pretrain RECIPE --run URI --arm adainf

On CPUs set ACCELERATE_USE_CPU=true: the launcher's own --cpu starts one process, whatever --num_processes says.
"""

import sys

from adainf.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
