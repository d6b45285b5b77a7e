"""All that knows MMDetection. Conversion works without it; deleting this folder and `cli/` leaves a working library.

::

    guard.py        a hook that stops a training which does not start from its checkpoint; configs import it
    loader.py       lets mmengine read checkpoints with the inert reader; configs import it
    file_order.py   a transform that puts an image's channels into the order of its file; configs import it
    modules/        classes that configs build
    config/         the config of a detector, written for a converted file
    check/          whether a detector, after its real initialisation, holds its checkpoints; if not, why
    environment/    doctor: what is installed, whether it fits, and what to type
    verify/         verify-ap: trains or tests, measures the AP, judges it
    loading/        torch objects made of what the inert reader found; `torch.load` replaced while a detector is built
    runtime.py      the installed MMDetection: configs resolved, detectors built, weights initialised
    hints.py        what hints about raw files say
    type_names.py   what the ``type`` of a config's dict names
    coco_file.py    annotations in COCO's format
"""
