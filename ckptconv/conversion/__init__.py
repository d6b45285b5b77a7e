"""A checkpoint and a plan -> a written, proved file, and what a converted file says of itself."""
