"""``python -m adainf`` is ``adainf``."""

import sys

from adainf.cli import main

sys.exit(main())
