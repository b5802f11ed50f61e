"""Quantisers: the bottleneck of discrete latents."""
