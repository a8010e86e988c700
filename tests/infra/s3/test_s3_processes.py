"""Many writers at once, a server that is killed and comes back, and memory that stays flat."""
