"""The parts of a diffusion model that hold no network."""
