"""Where bytes are: files, addresses, releases, the cache. Nothing here knows what a checkpoint is.

What talks to a network is imported when there is an address, and not before.
"""
