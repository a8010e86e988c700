"""Training that continues exactly where it was interrupted."""
