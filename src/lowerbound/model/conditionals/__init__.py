"""Conditionals: modules that return distributions.

Posterior, prior and likelihood are one type; the role is the position.
"""
