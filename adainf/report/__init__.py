"""The report: what a run found, as a table on the terminal and as one self-contained HTML page. Imports no torch."""
