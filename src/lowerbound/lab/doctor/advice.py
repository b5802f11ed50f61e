"""Treatments that several symptoms share."""

FREE_BITS = """free bits: --set 'objective={kind="free-bits", free_bits=0.5}'"""
LEARN_NOISE = """a likelihood that learns its noise: --set 'model.likelihood={kind="gaussian"}'"""
SHARE_NOISE = """one noise for all values: --set 'model.likelihood={kind="gaussian"}'"""
LEARN_SCALE = """let the likelihood learn the scale: --set 'model.likelihood={kind="gaussian", scaling="standard"}'"""
LEARN_PRIOR = """a prior that learns: --set 'model.prior={kind="mixture"}'"""
