"""The report of a run: a results table for the terminal and one self-contained HTML page. Does not import torch."""
