"""The first images of a data set in COCO's format, as an annotation file of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptconv.mmdetection.verify import config_edits


def write(config: Mapping[str, Any], images: int, folder: Path) -> None:
    """Write ``train.json`` and ``val.json`` with the first ``images`` images, by id, of the config's two data sets."""
    folder.mkdir(exist_ok=True)
    for part in ("train", "val"):
        dataset = next(iter(config_edits.datasets(config, part)))
        said = json.loads((Path(dataset.get("data_root") or "") / dataset["ann_file"]).read_text(encoding="utf-8"))
        said["images"] = sorted(said["images"], key=lambda image: image["id"])[:images]
        kept = {image["id"] for image in said["images"]}
        said["annotations"] = [a for a in said["annotations"] if a["image_id"] in kept]
        (folder / f"{part}.json").write_text(json.dumps(said), encoding="utf-8")
