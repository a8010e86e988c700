"""Reading: shards into augmented batches, exactly the samples that are asked for, in order."""
