"""What is installed, whether it can train a detector, and the commands that fix it. Imports no other folder here."""
