"""The pretrain stage for a launcher of several processes.

accelerate launch --num_processes 2 --cpu -m adainf.pretrain RECIPE --run URI --arm adainf
"""

import sys

from adainf.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
