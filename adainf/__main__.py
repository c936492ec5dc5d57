"""Entry point: ``python -m adainf`` runs the command line ``adainf``."""

import sys

from adainf.cli import main

sys.exit(main())
