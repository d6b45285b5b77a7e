"""Data are checked before a training: what a config says of them, what the files say, and whether they go together.

::

    findings.py    a problem or a note, as data
    said.py        a resolved config -> its data sets, as MMDetection would build them
    metainfo.py    the class names of a data set that names none, read from the source of the installed MMDetection
    dataset.py     a data set x its annotation file -> the images and labels that `CocoDataset` would give
    evaluator.py   the evaluator's file x what is evaluated -> whether `CocoMetric` measures, and what
    images.py      which images are not there
    check.py       all of these

The files are read by `ckptconv.mmdetection.coco_file`; torch and MMDetection are not imported. What is refused is what
MMDetection stops at, and what would make the AP say nothing; everything else is a note.
"""
