"""Where things live and on what they run; knows nothing of SKNet."""
