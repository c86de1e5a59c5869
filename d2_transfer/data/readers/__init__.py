"""Readers of annotation formats: each gives an `AnnotatedData` as the files have it."""
