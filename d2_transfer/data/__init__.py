"""Detection data sets: reading, checking, registering."""
