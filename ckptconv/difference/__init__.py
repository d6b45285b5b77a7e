"""Two checkpoints side by side: what they hold of the same network, and how far their numbers are apart."""
