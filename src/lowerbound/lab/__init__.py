"""How a model is made and judged: offline; batches in, numbers and files out."""
