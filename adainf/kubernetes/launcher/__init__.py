"""Runs a stage inside its pod: ``python -m adainf.kubernetes.launcher STAGE RECIPE --run URI …``; see docs/launch.md."""
