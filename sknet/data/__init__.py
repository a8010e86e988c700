"""From a source of images to exact batches: source → dataset → shards → order → pipeline."""
