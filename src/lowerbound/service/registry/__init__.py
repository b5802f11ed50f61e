"""The registry: versions of models that never change, names that point to them, and a history that only grows."""
