"""verify-ap: train or test what a config describes, measure its AP, and judge it.

::

    recipes.py   THE TABLE of published results, and what makes a run one of theirs
    request.py   what a user may ask for, checked as it comes in
    shapes.py    a data set in COCO's format that needs no download
    small.py     what the tiers change of a config
    evaluators.py  the one CocoMetric that a config is evaluated by
    adjustments.py  what a tier leaves out of a config, and says so
    plan.py      request -> the runs, each with its config and its command; what the AP will be compared with
    launch.py    the command that starts a run's processes: python, torchrun, srun
    worker.py    what those processes do: mmengine's Runner, and events and results as files
    events.py    the events of a run, as they come and as a curve
    conduct.py   starts a run, follows it, and stops all of it; a lock keeps a folder to one
    measure.py   detections and annotations -> AP, by pycocotools
    verdict.py   measured x expected -> pass, fail or inconclusive, by a stated rule
    report.py    report.json and report.md
    page.py      report.html; curves.py and drawing.py draw for it
    pipeline.py  all of it in a row

A run's processes and its conductor share nothing but files in the run's folder: `worker.py` names them.
"""
