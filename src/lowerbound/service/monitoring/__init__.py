"""How a model in use is watched."""
