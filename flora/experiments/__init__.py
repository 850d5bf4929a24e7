"""Named comparisons, and the records they leave."""
