"""Files: atomic writes, digests, downloads, the cache."""
