"""Drift: whether requests, codes or errors are still what they were; arrays in, verdicts out."""
