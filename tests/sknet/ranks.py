"""What jobs of two ranks have in common in the tests."""

EAGER_CLUSTER = {"MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1"}
"""Environment of ranks that look for each other every second; by default, every 3 to 5 seconds."""
