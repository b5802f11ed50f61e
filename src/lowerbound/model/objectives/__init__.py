"""Objectives: from evidence to a loss. They never see a model."""
