"""Evaluation: predictions of each sample once, and what is counted from them on the host.

`predictions`, `prediction_file` and `counting` know no MindSpore.
"""
