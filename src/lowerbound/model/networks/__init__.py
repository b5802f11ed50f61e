"""Networks: deterministic functions of tensors. Shape arithmetic lives here and nowhere else."""
