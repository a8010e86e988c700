"""Reading: shards become augmented batches of exactly the requested samples, in order."""
