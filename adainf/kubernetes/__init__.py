"""Runs the pipeline on a Kubernetes cluster."""
