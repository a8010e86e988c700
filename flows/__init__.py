"""The flows: each body reads like its diagram."""
