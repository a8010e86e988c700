"""Evaluation: each sample is predicted once, and every count is computed from the predictions."""
