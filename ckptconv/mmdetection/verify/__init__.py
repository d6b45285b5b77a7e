"""verify-ap: train or test what a config describes, measure its AP, and judge it.

::

    request.py        what a user can ask for, validated
    recipes.py        THE TABLE of published results, and the digest that tells whether a run has a row's recipe
    target.py         request -> the resolved config, and its checkpoint
    expectation.py    what the AP is compared with
    plan.py           request -> all of it: target, launch, runs, expected AP
    runs.py           a tier -> its runs, each with a config and a job
    config_edits.py, lift.py, adjustments.py   what tiers change in a config
    evaluators.py     the one CocoMetric of a config
    requirements.py, packages.py   whether this machine can run a plan
    data/             whether the data and the config fit together; generated data; the first images of a file
    run/              the processes of a run: start, follow, resume, and the files that they write
    same_network.py   whether the two runs of a lift train one network
    measure.py        detections and annotations -> AP, by pycocotools
    compare_ap.py     measured x expected -> pass, fail or inconclusive, by a stated rule
    verdict.py        the proof, the runs and their AP -> the verdict
    tiers.py          what a tier shows, and what its verdict means
    make_report.py    a plan and what its runs measured -> the report
    report/           the report as data, JSON, Markdown and HTML
    verify_ap.py      all of it in a row

The processes of a run and their supervisor share only the files in the run's folder: `run/files.py` describes them.
"""
