"""Conversion: a staged source becomes MindRecord shards, written in parallel and resumable."""
