"""The processes of a run: how they are started, followed, stopped and resumed, and the files that they write."""
