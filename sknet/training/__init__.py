"""The training loop that nobody can tell was interrupted."""
