"""Training: one visible loop."""
