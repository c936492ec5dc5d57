"""``python -m adainf.orchestrate``: what `Job/adainf` runs."""

import sys

from adainf.orchestrate.main import main

sys.exit(main())
