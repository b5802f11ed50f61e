"""Families: assemblies of parts behind four verbs."""
