"""The stages: each reads finished artifacts of a run, calls the rooms below, and writes its own artifacts.

A stage is a plain function of (recipe, run, reporter). Called again it finds its artifact and does nothing; called
after it was killed it goes on from what it had saved.
"""
