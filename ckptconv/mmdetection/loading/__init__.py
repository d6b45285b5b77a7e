"""Stored tensors as torch tensors, for mmengine and for whoever calls `torch.load` while a detector is built."""
