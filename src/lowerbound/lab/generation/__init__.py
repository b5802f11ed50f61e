"""Use of a trained model: sample, reconstruct, encode, decode, ways through the latents, edits and repairs."""
