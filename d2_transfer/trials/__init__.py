"""Repeated fine-tunings of several backbones, and what is published to compare them with."""
