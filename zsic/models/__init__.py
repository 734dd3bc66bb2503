"""Checkpoints as arithmetic: images and prompts to unit vectors, labels to heads.  Knows torch, not Ray."""
