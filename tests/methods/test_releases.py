"""The table of published files: facts that their authors printed, and a file that is read late."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from ckptconv.methods import METHODS
from ckptconv.methods.interface import Method, Published, Release
from ckptconv.methods.releases import FILE, built_in
from tests.support import released

# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_release_is_found_by_its_name_once_with_all_that_is_known_of_it() -> None:
    lines = FILE.read_text("utf-8").splitlines()
    for release in (release for m in METHODS for release in m.releases):
        (line,) = (line for line in lines if f'"{release.name}"' in line)
        told = (release.url, release.backbone, release.md5, release.sha256)
        assert [text for text in told if f'"{text}"' not in line and text] == []


def test_a_table_is_a_method_s_and_in_the_methods_order() -> None:
    assert list(built_in()) == [m.name for m in METHODS if isinstance(m.releases, Published)]
    assert [m.name for m in METHODS if m.releases] == list(built_in())


def test_a_licence_has_its_source_and_unknown_is_empty() -> None:
    releases = [release for m in METHODS for release in m.releases]
    assert all(bool(r.licence) == bool(r.licence_url) for r in releases)
    assert all(r.licence_url.startswith("https://") for r in releases if r.licence)
    permissive = {"MIT", "Apache-2.0", "CC-BY-4.0", "NVIDIA Open Model License"}
    limited = {
        "CC-BY-NC-4.0",
        "CC-BY-NC",
        "DINOv3 License",
        "SEER License",
        "Franca RESEARCH-ONLY RAIL-AMS",
        "FAIR Noncommercial Research License",
    }
    assert {r.licence for r in releases} == {"", *permissive, *limited}
    assert {r.licence for r in releases if r.restrictions} == limited
    assert all("no commercial use" in r.restrictions for r in releases if r.licence in limited - {"DINOv3 License"})
    stated = {m.name: {r.licence for r in m.releases} for m in METHODS if m.releases}
    assert all(len(licences) == 1 for licences in stated.values())
    assert (stated["dinov2"], stated["mae"], stated["byol"]) == ({"Apache-2.0"}, {"CC-BY-NC-4.0"}, {""})


def test_a_licence_s_source_is_the_repository_of_the_method_or_of_the_files() -> None:
    for method in METHODS:
        for release in method.releases:
            owners = (f"https://github.com/{method.repository}", release.url.partition("/resolve/")[0])
            assert release.licence_url.startswith(owners) or not release.licence


READS = """\
import sys, ckptconv
from ckptconv.methods import METHODS
ckptconv.convert(sys.argv[1], sys.argv[2])
late = {"ckptconv.methods.releases", "tomllib", "tomli"}
print(*sorted(late & {*sys.modules}))
[method] = [m for m in METHODS if m.name == "moco"]
print(len(method.releases), *sorted(late & {*sys.modules} - {"tomllib", "tomli"}))
"""


def test_the_file_is_read_when_a_release_is_asked_for_and_not_before(tmp_path: Path) -> None:
    network = released.network("ResNet-18").entries()
    torch.save({name: torch.zeros(shape) for name, shape in network.items()}, tmp_path / "in.pth")
    command = [sys.executable, "-c", READS, str(tmp_path / "in.pth"), str(tmp_path / "out.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "3 ckptconv.methods.releases"]


def test_published_releases_are_like_a_tuple_of_them() -> None:
    rows = Published("moco")
    assert (len(rows), rows[0].name, [r.name for r in rows[1:]]) == (
        3,
        "moco_v1_200ep",
        ["moco_v2_200ep", "moco_v2_800ep"],
    )
    assert rows == tuple(rows) == Published("moco")
    assert tuple(rows) == rows
    assert rows != tuple(rows)[:2]
    assert rows != Published("mocov3")
    assert rows != list(rows)
    assert hash(rows) == hash(tuple(rows))
    assert repr(rows) == "Published('moco')"


# -- facts: read off the READMEs of their repositories ----------------------------------------------------------------

FB = "https://dl.fbaipublicfiles.com/"
HF = "https://huggingface.co/"
APEX = "sinkhorn10_proto16k_apex_syncBN64_warmup8k"
LAST = "model_final_checkpoint_phase0"
PRINTED = {
    "moco": {
        f"{FB}moco/moco_checkpoints/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar": "b251726a",
        f"{FB}moco/moco_checkpoints/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar": "59fd9945",
        f"{FB}moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar": "a04e12f8",
    },
    "mocov3": {
        f"{FB}moco-v3/r-50-100ep/r-50-100ep.pth.tar": "",
        f"{FB}moco-v3/r-50-300ep/r-50-300ep.pth.tar": "",
        f"{FB}moco-v3/r-50-1000ep/r-50-1000ep.pth.tar": "",
        f"{FB}moco-v3/vit-s-300ep/vit-s-300ep.pth.tar": "",
        f"{FB}moco-v3/vit-b-300ep/vit-b-300ep.pth.tar": "",
    },
    "simsiam": {
        f"{FB}simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar": "",
        f"{FB}simsiam/models/100ep-256bs/pretrain/checkpoint_0099.pth.tar": "",
    },
    "barlowtwins": {
        f"{FB}barlowtwins/{path}.pth": ""
        for path in (
            "ljng/resnet50",
            "ljng/checkpoint",
            "ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051/resnet50",
        )
    },
    "vicreg": {
        f"{FB}vicreg/{name}{full}.pth": ""
        for name in ("resnet50", "resnet50x2", "resnet200x2")
        for full in ("", "_fullckpt")
    },
    "dino": {
        f"{FB}dino/dino_{name}_pretrain/dino_{name}_pretrain{full}.pth": ""
        for name in (
            *("resnet50", "deitsmall16", "deitsmall8", "vitbase16", "vitbase8"),
            *(f"xcit_{size}_{patch}" for size in ("small_12", "medium_24") for patch in ("p16", "p8")),
        )
        for full in ("", "_full_checkpoint")
    }
    | {
        f"{FB}dino/{path}.pth": ""
        for path in (
            "example_runs_logs/dino_rn50_checkpoint",
            "dino_vitsmall16_googlelandmark_pretrain/dino_vitsmall16_googlelandmark_pretrain",
        )
    },
    "hiera": {
        f"{FB}hiera/mae_hiera_{size}_224.pth": "" for size in ("tiny", "small", "base", "base_plus", "large", "huge")
    },
    "seer": {
        f"{FB}vissl/model_zoo/{path}.torch": ""
        for path in (
            "seer_regnet32d/seer_regnet32gf_model_iteration244000",
            "seer_regnet64/seer_regnet64gf_model_final_checkpoint_phase0",
            f"swav_ig1b_regnet128Gf_cnstant_bs32_node16_sinkhorn10_proto16k_syncBN64_warmup8k/{LAST}",
            f"swav_ig1b_cosine_rg256gf_noBNhead_wd1e5_fairstore_bs16_node64_{APEX}/{LAST}",
            "seer_regnet10B/model_iteration124500_conso",
        )
    },
    "mae": {
        f"{FB}mae/pretrain/mae_pretrain_vit_base.pth": "8cad7c",
        f"{FB}mae/pretrain/mae_pretrain_vit_large.pth": "b8b06e",
        f"{FB}mae/pretrain/mae_pretrain_vit_huge.pth": "9bdbb0",
        f"{FB}mae/visualize/mae_visualize_vit_large.pth": "",
        f"{FB}mae/visualize/mae_visualize_vit_large_ganloss.pth": "",
    },
    "beit": {
        f"https://github.com/addf400/files/releases/download/v1.0/beit_{size}_patch16_224_pt22k.pth": ""
        for size in ("base", "large")
    },
    "eva": {  # printed as the pages of these files
        f"https://huggingface.co/BAAI/EVA/resolve/main/{name}.pt": "" for name in ("eva_psz14", "eva_psz14to16")
    },
    "beit-1k": {"https://github.com/addf400/files/releases/download/v1.0/beit_base_patch16_224_pt1k_800ep.pth": ""},
    "beitv2": {
        f"https://github.com/addf400/files/releases/download/BEiT-v2/beitv2_{size}_patch16_224_pt1k{run}.pth": ""
        for size in ("base", "large")
        for run in ("", "_300e")
    },
    "data2vec": {
        f"{FB}fairseq/data2vec/data2vec_vision/{name}/checkpoint-799.pth": ""
        for name in ("base_800", "large_800", "large_1600")
    },
    "maskfeat": {f"{FB}pyslowfast/masked_models/in1k_VIT_{size}_MaskFeat_PT_epoch_01600.pyth": "" for size in "BL"},
    "ibot": {
        f"https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/{path}.pth": ""
        for name, file in (
            ("swint_7", "teacher"),
            ("swint_14", "teacher"),
            ("vits_16", "teacher"),
            ("vitb_16", "teacher"),
            ("vitb_16_rand_mask", "teacher"),
            ("vitl_16", "teacher"),
            ("vitl_16_rand_mask", "teacher"),
            ("vitb_16_pt22k", "student"),
            ("vitl_16_pt22k", "student"),
        )
        for path in (f"{name}/checkpoint_{file}", f"{name}/checkpoint")
    },
    "dinov2": {
        f"{FB}dinov2/dinov2_vit{size}14/dinov2_vit{size}14{registers}_pretrain.pth": ""
        for size in "sblg"
        for registers in ("", "_reg4")
    },
    "franca": {
        f"https://github.com/valeoai/Franca/releases/download/v1.0.0/franca_{name}.pth": ""
        for name in ("vitb14_In21k", "vitl14_In21k", "vitl14_Laion600M")
    },
    "tips": {
        f"https://storage.googleapis.com/tips_data/{version}/checkpoints/pytorch/tips_{name}_vision.npz": ""
        for version, names in (
            (
                "v1_0",
                (
                    *(f"oss_{size}14_highres_distilled" for size in "sbl"),
                    "oss_so400m14_highres_largetext_distilled",
                    "oss_g14_lowres",
                    "oss_g14_highres",
                ),
            ),
            ("v2_0", (f"v2_oss_{size}14" for size in ("b", "l", "so", "g"))),
        )
        for name in names
    },
    "dinov3": {
        f"{FB}dinov3/dinov3_{size}/dinov3_{size}_pretrain_lvd1689m-{mark}.pth": mark
        for size, mark in (
            ("vits16", "08c60483"),
            ("vits16plus", "4057cbaa"),
            ("vitb16", "73cec8be"),
            ("vitl16", "8aa4cbdd"),
            ("vith16plus", "7c1da9a5"),
            ("vit7b16", "a955f4ea"),
            ("convnext_tiny", "21b726bb"),
            ("convnext_small", "296db49d"),
            ("convnext_base", "801f2ba9"),
            ("convnext_large", "61fa432d"),
        )
    },
    "dinov3-sat493m": {
        f"{FB}dinov3/dinov3_{size}/dinov3_{size}_pretrain_sat493m-{mark}.pth": mark
        for size, mark in (("vitl16", "eadcf0ff"), ("vit7b16", "a6675841"))
    },
    "eupe": {
        f"{HF}facebook/EUPE-{kind}-{size}/resolve/main/EUPE-{kind}-{size}.pt": ""
        for kind, sizes in (("ViT", "TSB"), ("ConvNeXt", "TSB"))
        for size in sizes
    },
    "radio": {
        f"{HF}nvidia/C-RADIO{model}/resolve/main/c-{file}_half.pth.tar": ""
        for model, file in (
            ("v3-B", "radio_v3-b"),
            ("v3-L", "radio-v3_l"),
            ("v3-H", "radio_v3-h"),
            ("v3-g", "radio_v3-g"),
            ("v4-SO400M", "radio_v4-so400m"),
            ("v4-H", "radio_v4-h"),
        )
    },
    "eva02": {
        f"{HF}Yuxin-CV/EVA-02/resolve/main/eva02/pt/eva02_{name}.pt": ""
        for name in (
            *(f"{size}_pt_in21k_p14" for size in ("Ti", "S", "B", "L")),
            *(f"{size}_pt_in21k_p14to16" for size in "BL"),
            *("L_pt_m38m_p14", "L_pt_m38m_p14to16"),
        )
    },
    "pe": {
        f"{HF}facebook/PE-{name}/resolve/main/PE-{name}.pt": ""
        for name in (
            *(f"Core-{size}" for size in ("T16-384", "S16-384", "B16-224", "L14-336", "G14-448")),
            *(f"Lang-{size}14-448{tiled}" for size in "LG" for tiled in ("", "-Tiling")),
            *(f"Spatial-{size}" for size in ("T16-512", "S16-512", "B16-512", "L14-448", "G14-448")),
        )
    },
    "simmim": {
        f"{HF}zdaxie/SimMIM/resolve/main/simmim_swinv2_pretrain_models/swinv2_base_{data}_{steps}k.pth": ""
        for data in ("1k", "22k")
        for steps in (125, 250, 500)
    },
    "msn": {
        f"{FB}msn/{name}.pth.tar": ""
        for name in ("vits16_800ep", "vitb16_600ep", "vitl16_600ep", "vitb4_300ep", "vitl7_200ep")
    },
    "ijepa": {
        f"{FB}ijepa/{name}.pth.tar": ""
        for name in (
            "IN1K-vit.h.14-300e",
            "IN1K-vit.h.16-448px-300e",
            "IN22K-vit.h.14-900e",
            "IN22K-vit.g.16-600e",
        )
    },
    "vicregl": {
        f"{FB}vicregl/{name}{full}.pth": ""
        for name in (
            *(
                f"{arch}_alpha{alpha}"
                for arch in ("resnet50", "convnext_small", "convnext_base")
                for alpha in (0.9, 0.75)
            ),
            "convnext_xlarge_alpha0.75",
        )
        for full in ("", "_fullckpt")
    },
    "fcmae": {
        f"{FB}convnext/convnextv2/pt_only/convnextv2_{arch}_1k_224_fcmae.pt": ""
        for arch in ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
    },
    "resim": {
        "https://people.eecs.berkeley.edu/~cjrd/data/resim_fpn_400ep.pth.tar": "",
        "https://people.eecs.berkeley.edu/~cjrd/data/resim_fpn_200ep.pth.tar": "",
    },
    "scrl": {
        f"https://twg.kakaocdn.net/brainrepo/scrl/{name}.pth": ""
        for name in ("byol_200ep", "byol_1000ep", "scrl_200ep", "scrl_1000ep")
    },
    "obow": {
        f"https://github.com/valeoai/obow/releases/download/v0.1.0/ImageNetFull_ResNet50_OBoW_full{part}.zip": ""
        for part in ("", "_feature_extractor")
    },
    "simclr-spijkervet": {
        f"https://github.com/Spijkervet/SimCLR/releases/download/{path}": ""
        for path in ("1.0/checkpoint_40.tar", "1.1/checkpoint_100.tar", "1.2/checkpoint_100.tar")
    },
    "moby": {
        f"https://github.com/SwinTransformer/storage/releases/download/v1.0.3/moby_{name}_300ep_pretrained.pth": ""
        for name in ("swin_t", "deit_small")
    },
    "esvit": {
        f"https://chunyleu.blob.core.windows.net/output/ckpts/esvit/{path}.pth": ""
        for path in (
            "resnet/resnet50/bl_lr0.0005_gpu16_bs64_multicrop_epoch300_dino_aug/resume_from_ckpt0200/checkpoint",
            *(
                f"swin/swin_{size}/bl_lr0.0005_{run}/{more}checkpoint_best"
                for size, run, more in (
                    ("tiny", "gpu16_bs32_dense_multicrop_epoch300", ""),
                    ("small", "gpu16_bs32_dense_multicrop_epoch300", ""),
                    ("base", "gpu16_bs32_multicrop_epoch300_dino_aug", "continued_from0200_dense/"),
                    ("tiny", "gpu16_bs32_multicrop_epoch300_dino_aug_window14", "continued_from0200_dense/"),
                    ("small", "gpu16_bs16_multicrop_epoch300_dino_aug_window14", "continued_from0180_dense/"),
                    (
                        "base",
                        "nodes4_gpu16_bs8_multicrop_epoch300_dino_aug_window14_lv",
                        "continued_from_epoch0200_dense_norm_true/",
                    ),
                )
            ),
        )
    },
    "bolts": {
        f"https://pl-bolts-weights.s3.us-east-2.amazonaws.com/{path}_imagenet.ckpt": ""
        for path in ("simclr/bolts_simclr_imagenet/simclr", "swav/bolts_swav_imagenet/swav")
    },
    "byol": {
        f"https://storage.googleapis.com/deepmind-byol/checkpoints/{name}.pkl": ""
        for name in (
            *(f"pretrain_{n}" for n in ("res50x1", "res200x2")),
            *(f"ablations/res50x1_batchsize_{n}" for n in (64, 128, 256, 512, 1024, 2048)),
            *(f"ablations/res50x1_{n}" for n in ("baseline", "no_grayscale", "no_color")),
            *(f"ablations/res50x1_crop_{n}" for n in ("only", "and_color_only", "and_blur_only")),
        )
    },
    "detcon": {f"https://storage.googleapis.com/dm-detcon/resnet{n}_detcon_b_imagenet_1k.npy": "" for n in (50, 200)},
    "swav": {
        f"{FB}deepcluster/{name}_pretrain.pth.tar": ""
        for name in (
            *(f"swav_{n}" for n in ("100ep", "200ep", "400ep", "800ep", "200ep_bs256", "400ep_bs256", "400ep_2x224")),
            *(f"swav_RN50w{w}_400ep" for w in (2, 4, 5)),
            *(f"deepclusterv2_{n}" for n in ("400ep", "800ep", "400ep_2x224")),
            *(f"selav2_{n}" for n in ("400ep", "400ep_2x224")),
        )
    },
}


@pytest.mark.parametrize("name", PRINTED)
def test_releases_are_those_the_authors_print(name: str) -> None:
    (method,) = (m for m in METHODS if m.name == name)
    assert {release.url: release.md5 or release.sha256 for release in method.releases} == PRINTED[name]


def test_a_release_has_a_name_of_its_own() -> None:
    releases = [release for m in METHODS for release in m.releases]
    assert [n for n, count in Counter(r.name for r in releases).items() if count > 1] == []
    assert [u for u, count in Counter(r.url for r in releases).items() if count > 1] == []
    assert all(re.fullmatch(r"https://[\w./~-]+", r.url) for r in releases)  # http is refused
    assert all(re.fullmatch(r"([0-9a-f]{6,32})?", r.md5) for r in releases)
    assert all(re.fullmatch(r"([0-9a-f]{8,64})?", r.sha256) for r in releases)


def test_every_release_is_among_those_that_were_read_off() -> None:
    zoo = {"vissl"}  # a table of 29 rows: to write it down twice would prove nothing
    assert {m.name for m in METHODS if m.releases} == {*PRINTED} | zoo


@pytest.mark.parametrize(
    ("method", "release"), [(m, r) for m in METHODS for r in m.releases], ids=lambda x: getattr(x, "name", "")
)
def test_a_release_s_network_is_what_its_method_finds(method: Method, release: Release) -> None:
    """In a file of each of its method's layouts: names as in the cases, the network's own shapes."""
    family = released.family(release.backbone)
    layouts = released.written(method, family) or [released.elsewhere(method, released.network(release.backbone))]
    known = [
        (file, wanted)
        for layout in layouts
        for wanted in [released.network(release.backbone, layout.like)]
        if (file := layout.file(wanted)) is not None
    ]
    assert known
    for file, wanted in known:
        plan = released.canonical(file, method, family)
        assert plan.backbone is not None
        assert plan.complete or plan.unsupported_target  # by its names it is known, whatever the target holds
        assert plan.backbone.name == release.backbone
        entries = wanted.entries()
        assert {m.target: m.spec.shape for m in plan.moves} == {
            n: s for n, s in entries.items() if n not in plan.optional_missing
        }
        assert all(wanted.optional(name) for name in plan.optional_missing)


def expanded(pattern: str) -> list[str]:
    """What a shell makes of `{a,b}`."""
    found = re.fullmatch(r"(.*?)\{([^{}]*)\}(.*)", pattern)
    if found is None:
        return [pattern]
    return [text for word in found[2].split(",") for text in expanded(f"{found[1]}{word}{found[3]}")]


def collected() -> dict[str, str]:
    """Networks by address, of a list that was put together without a look at the table."""
    lines = (Path(__file__).parent / "addresses.txt").read_text("utf-8").splitlines()
    said = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    found = [(url, network) for network, _, pattern in said for url in expanded(pattern)]
    assert len(found) == len(dict(found))
    return dict(found)


def test_every_address_that_was_collected_is_a_release_of_that_network() -> None:
    known = {release.url: release.backbone for m in METHODS for release in m.releases}
    assert {url: known.get(url) for url in collected()} == collected()
    assert len(collected()) == 152


def test_every_release_says_its_network_and_none_gets_lost() -> None:
    releases = [release for m in METHODS for release in m.releases]
    assert all(release.backbone for release in releases)
    assert len(releases) >= 191
