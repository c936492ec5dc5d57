"""The chain on a cluster: Jobs made from stored templates, one after the other, until the report is there.

It keeps no state: Jobs, the run's store and the clock are all that it knows, so it may be killed after any call. No torch.
"""
