"""All that knows MMDetection. Conversion works without it; deleting this folder and `cli/` leaves a working library.

::

    detectors.py   THE TABLE: detectors and schedules, as MMDetection's own configs have them
    networks.py    a backbone read from shapes -> the arguments of its constructor
    choices.py     what a user may choose of a config
    pretrained.py  what a converted file says of itself
    sheet.py       what a config changes of its base
    placing.py     a network that is no ResNet in the place of the base's backbone; changes.py is what both write in
    literal.py     nested data -> Python text
    config.py      all of these -> the text of a config
    adopt.py       a config of the user's own as such a base
    compare.py     a module of a built detector against its file, entry by entry; comparison.py is what comes out
    reasons.py     what the comparison means, and the line to change
    addresses.py   checkpoints that a config names by address: fetched, and handed to mmengine as a download is
    check.py       builds and initialises a config's detector and asks them
    tensors.py     stored tensors as torch tensors
    guard.py       the same inside a training, before its first iteration
    contents.py    what torch.load gives for a file, made of what the inert reader found; loader.py hands it to mmengine
    verify/        verify-ap: trains or tests, measures the AP, judges it
    doctor.py      what is installed and whether it fits; probe.py asks, mends.py says what to type
    runtime.py     resolving configs and building detectors with the installed packages
"""
