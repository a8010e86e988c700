"""Copies of one image: found by its bytes and by how it looks, whatever their names and splits."""
