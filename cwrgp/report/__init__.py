"""Self-contained HTML pages with charts; knows nothing of what they report."""
