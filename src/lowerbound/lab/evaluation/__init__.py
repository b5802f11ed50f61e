"""Evaluation: pure functions from models and batches to numbers that say what they are."""
