"""Scores of detections without a model: neither torch nor Detectron2 is imported."""
