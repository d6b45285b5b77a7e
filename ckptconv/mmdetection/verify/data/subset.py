"""The first images of an annotation file in COCO's format, as a file of their own."""

from __future__ import annotations

import json
from pathlib import Path


def write(source: Path, images: int, destination: Path) -> None:
    """Write the first ``images`` images of ``source`` by id, with their annotations and all categories."""
    content = json.loads(source.read_text(encoding="utf-8"))
    content["images"] = sorted(content["images"], key=lambda image: image["id"])[:images]
    chosen = {image["id"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
    destination.write_text(json.dumps(content), encoding="utf-8")
