"""A checkpoint's passport: its model card, its data's metadata and the signed chain of digests.

Functions from records to documents; they need no MindSpore and no store.
"""
