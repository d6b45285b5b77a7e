"""Data are checked before a training: what the config sets, what the files contain, and whether they fit together.

::

    findings.py         problems and notes, as data
    dataset_configs.py  a resolved config -> its data sets, as MMDetection would build them
    metainfo.py         the class names of a data set whose config sets none, from the installed MMDetection's source
    coco_dataset.py     a data set x its annotation file -> the images and labels that `CocoDataset` would give
    ground_truth.py     the evaluator's file x the evaluated images -> whether `CocoMetric` can measure their AP
    class_findings.py   classes x categories x heads -> problems and notes
    remaining.py        what remains to train on, and what looks unusual
    images.py           which images are missing
    commands.py         what to type about a file
    check.py            all of these
    subset.py           the first images of an annotation file
    synthetic.py        a generated data set

`ckptconv.mmdetection.coco_file` reads the files; torch and MMDetection are not imported. A problem is what MMDetection
fails at, and what makes the AP meaningless; everything else is a note.
"""
