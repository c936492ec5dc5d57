"""``python -m adainf.kubernetes.controller``: what `Job/adainf` runs."""

import sys

from adainf.kubernetes.controller.main import main

sys.exit(main())
