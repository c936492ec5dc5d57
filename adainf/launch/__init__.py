"""What runs inside the pod of a stage: ``python -m adainf.launch STAGE RECIPE --run URI …``; see docs/launch.md."""
