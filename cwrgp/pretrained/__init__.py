"""Pretrained checkpoints: safe reading, and the table of known formats."""
