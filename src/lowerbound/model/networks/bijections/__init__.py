"""Bijections: networks that can be inverted, with the log-determinant of their Jacobian."""
