"""The life of a model in service, played in minutes on real processes."""
