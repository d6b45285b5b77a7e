"""Names in, a Plan out: which method wrote a file, and what becomes of each tensor. Pure: reads no file."""
