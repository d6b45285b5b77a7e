"""Whether a module in memory holds a file's tensors. Knows torch and the inert reader, and no framework."""
