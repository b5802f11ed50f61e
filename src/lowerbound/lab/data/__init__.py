"""Data: raw rows, split, with the facts that shape a model."""
