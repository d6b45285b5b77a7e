"""Torch objects from what the inert reader found, for mmengine and for all code that calls `torch.load`.

::

    tensors.py         stored tensors as torch tensors
    torch_objects.py   a whole file as `torch.load` gives it
    inert_load.py      `torch.load` replaced by it while a detector is built and initialised
"""
