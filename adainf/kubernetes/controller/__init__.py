"""The controller: creates the Job of each stage when its inputs exist, and retries failed attempts, until the report exists.

It is stateless. Its inputs are the Jobs and pods of the cluster, the run's store and the clock, so it can be killed after any
API call. It does not import torch.
"""
