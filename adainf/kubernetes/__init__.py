"""Running the pipeline on a Kubernetes cluster."""
