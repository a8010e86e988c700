"""Prediction: what a trained network says of any images, as its evaluation would say it."""
