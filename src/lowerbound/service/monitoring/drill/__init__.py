"""Drills: normal traffic, planted trouble, and how long it takes to be seen."""
