"""Two examples for each command, as its `--help` shows them: what one types, and what that is for."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "convert": {
        "ckptconv convert moco_v2.pth moco_r50.pth": "find the method by the names in the file",
        "ckptconv convert --selfsup swav swav_800ep.pth swav_r50.safetensors": "name it, and write safetensors",
    },
    "inspect": {
        "ckptconv inspect moco_v2.pth": "which network it is, and what else the file holds",
        "ckptconv inspect moco_v2.pth --all": "every tensor on its own line",
    },
    "diff": {
        "ckptconv diff moco_v2.pth moco_r50.pth": "whether a converted file still has its source's numbers",
        "ckptconv diff moco_v2.pth swav_800ep.pth --all": "every tensor that differs, and by how much",
    },
    "methods": {
        "ckptconv methods vit": "the methods whose networks are ViTs",
        "ckptconv methods --fits moco_v2.pth": "the methods that explain a file",
    },
    "explain": {
        "ckptconv explain moco_v2.pth module.queue": "why a tensor is left out",
        "ckptconv explain moco_v2.pth module.encoder_q.conv1.weight": "where a tensor goes, and by which rule",
    },
    "releases": {
        "ckptconv releases dinov3": "the files of a method, a network or a name",
        "ckptconv releases 'mae*' --json": "with their addresses",
    },
    "emit-config": {
        "ckptconv emit-config moco_r50.pth -o mask_rcnn.py": "Mask R-CNN on COCO",
        "ckptconv emit-config moco_r50.pth -d retinanet -s ms-2x --classes cat,dog -o retinanet.py": "your own classes",
    },
    "check": {
        "ckptconv check mask_rcnn.py": "does the detector really start from the checkpoint?",
        "ckptconv check mask_rcnn.py --json": "the same for a program; exit 1 if it does not",
    },
    "verify-ap": {
        "ckptconv verify-ap mask_rcnn.py": "train a small detector on generated images",
        "ckptconv verify-ap mask_rcnn.py --tier full --gpus 8": "train the published recipe, and compare the AP",
    },
    "report": {
        "ckptconv report work_dirs/moco-lift work_dirs/swav-lift": "two verifications in one page, comparison.html",
        "ckptconv report work_dirs/* -o all.html": "all of them",
    },
    "recipes": {
        "ckptconv recipes": "the published results that verify-ap knows",
        "ckptconv recipes --json": "with their sources and digests",
    },
    "doctor": {
        "ckptconv doctor": "what is installed, and what to type for the rest",
        "ckptconv doctor --json": "the same for a program",
    },
    "guide": {
        "ckptconv guide": "the pages of the guide",
        "ckptconv guide quickstart": "one of them",
    },
    "cache list": {
        "ckptconv cache list": "the files in the cache",
        "ckptconv cache list --cache-dir cache": "of another folder",
    },
    "cache clear": {
        "ckptconv cache clear": "remove them",
        "ckptconv cache clear --cache-dir cache": "from another folder",
    },
}


def epilog(command: str) -> str:
    """The examples of a command below its options, each as a line that a shell runs."""
    return "\n\n".join(["Examples:", *(f"{typed}  # {purpose}" for typed, purpose in EXAMPLES[command].items())])
