"""How a model is kept alive: long-running, stateful, concurrent."""
