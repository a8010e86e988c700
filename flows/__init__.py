"""The DAGs, each body reading like its diagram."""
