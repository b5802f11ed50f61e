"""Use of a trained model: sample, reconstruct, encode, decode."""
