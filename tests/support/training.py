"""A training by mmengine's own Runner, small enough for a test: ``python -m tests.support.training CONFIG …``.

Further arguments are ``key=value`` of the config, the values as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SMALL: dict[str, Any] = {
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "val_dataloader": None,
    "val_evaluator": None,
    "val_cfg": None,
    "test_dataloader": None,
    "test_evaluator": None,
    "test_cfg": None,
    "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 1},
    "param_scheduler": None,
    "default_hooks.visualization.draw": False,
    "default_hooks.logger.interval": 1,
    "env_cfg.dist_cfg.backend": "gloo",
    "env_cfg.mp_cfg": {},
}


def train(config: str, **options: Any) -> Any:
    from mmengine.config import Config
    from mmengine.runner import Runner

    settings = Config.fromfile(config)
    for key, value in {**SMALL, **options}.items():
        if value is None and "." not in key:
            settings[key] = None
        else:
            settings.merge_from_dict({key: value})
    for step in settings.train_dataloader.dataset.pipeline:
        if step["type"] == "Resize":
            step["scale"] = (64, 64)
    runner = Runner.from_cfg(settings)
    runner.train()
    return runner


if __name__ == "__main__":
    train(sys.argv[1], **{k: json.loads(v) for k, _, v in (a.partition("=") for a in sys.argv[2:])})
