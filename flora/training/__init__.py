"""How a network is taught and scored: losses, tasks, the loop, metrics."""
