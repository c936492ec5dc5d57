"""Runs a stage in its pod: ``python -m adainf.kubernetes.launcher STAGE RECIPE --run URI …``. See docs/launcher.md."""
