"""Speed and memory of the command line, against what people use today. See README.md in this folder."""
