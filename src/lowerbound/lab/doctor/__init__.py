"""What is wrong with a model: symptoms, evidence, likely causes, and what to do."""
