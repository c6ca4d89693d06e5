"""Trees as tar archives: out of and into containers, whose files are hostile and may change meanwhile."""
