"""The pipeline graph, artifacts, checkpoints and fencing, and how a recipe is loaded."""
