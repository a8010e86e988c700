"""Conversion: a source of images into sharded MindRecord files, resumable shard by shard."""
