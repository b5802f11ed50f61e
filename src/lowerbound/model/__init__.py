"""What a model is: tensors in, tensors out. No files, clocks, logs, devices or threads in this storey."""
