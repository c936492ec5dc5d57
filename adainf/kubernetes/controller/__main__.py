"""``python -m adainf.kubernetes.controller``: the entry point of `Job/adainf`."""

import sys

from adainf.kubernetes.controller.main import main

sys.exit(main())
