"""Retraining: from telemetry to a candidate that forgot nothing."""
