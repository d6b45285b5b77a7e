"""Whether a detector, after its real initialisation, holds the weights of its files; if not, why.

::

    run.py                builds and initialises a config's detector, compares, and reports; `check`
    initialisation.py     a training up to its first iteration: init_weights, load_from, hooks
    init_cfg.py           modules whose ``init_cfg`` names a checkpoint
    loaded_modules.py     these, and modules whose class loads a file by its own code
    downloads.py          the files behind the config's checkpoints, fetched where they are addresses
    reading.py            a file's tensors as a module reads them; mmdet_classes.py: what Swin's and PVT's code does
    compare.py            module against file, entry by entry
    evidence.py           what is known of a module, and what a finding is
    module_findings.py    what a comparison means; not_loaded.py and input_findings.py: two kinds of problems
    coverage.py           parts of a backbone that no file explains
    detector_findings.py  findings about the detector as a whole
    measured_input.py     what the network gets of an image, measured; colour_transforms.py: the transforms on its way
    verdict.py            what `check` found, as data, and its verdict in words
    guard_record.py       what the guard writes into the checkpoints of a training
"""
