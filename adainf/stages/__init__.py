"""The stages: each reads finished artifacts of a run, calls the packages below, and writes its own artifacts.

A stage is a plain function of (recipe, run, reporter). Called again it finds its artifact and does nothing; called
after a kill it resumes from what it has saved.
"""
