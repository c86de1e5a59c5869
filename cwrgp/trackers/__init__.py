"""Where the numbers of a run are kept: one file for each tracker, and a table of their names."""
