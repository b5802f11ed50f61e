"""Looks at telemetry: drift, unusual requests, what they are made of, and what is kept of it."""
