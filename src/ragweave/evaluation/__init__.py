"""Data sets, metrics, the runner and the report of evaluations."""
