"""Where a person touches it."""
