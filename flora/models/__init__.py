"""The networks, the thresholds they are measured against, and their weights."""
