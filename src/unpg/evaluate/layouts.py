"""Where each test set is expected below the data root, and where one gets it; for messages and help."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unpg.errors import DataError

__all__ = ["LAYOUTS", "Layout", "layout_text", "missing_set", "require", "set_of", "usual_layout"]


@dataclass(frozen=True)
class Layout:
    """A set below the data root.

    Args:
        tree: What is expected, paths relative to the data root with a word on each.
        source: Where one gets it, or applies for it.
    """

    tree: str
    source: str


_BIN = "as {bin}.bin beside the training sets of insightface (its dataset page)"

LAYOUTS: Mapping[str, Layout] = {
    "lfw": Layout(
        """\
lfw/images/<Name>/<Name>_NNNN.jpg      aligned crops of 112 x 112
lfw/pairs.txt                          the official View-2 list
lfw.bin                                or this alone, for the pairs only""",
        "vis-www.cs.umass.edu/lfw (free); " + _BIN.format(bin="lfw"),
    ),
    "cfp": Layout(
        """\
cfp/images/<id>/frontal/NN.jpg         aligned crops of 112 x 112
cfp/images/<id>/profile/NN.jpg
cfp/protocol/Pair_list_F.txt           the official lists
cfp/protocol/Pair_list_P.txt
cfp/protocol/Split/{FF,FP}/01 .. 10/{same,diff}.txt
cfp_ff.bin, cfp_fp.bin                 or these alone, for the pairs only""",
        "www.cfpw.io (free for research); " + _BIN.format(bin="cfp_ff, cfp_fp"),
    ),
    "yaleb": Layout(
        """\
yaleb/<id>/<id>_P00A+050E-40.jpg       the cropped set (168 x 192, or resized), a file for each light""",
        "Extended Yale B, the cropped set: vision.ucsd.edu/content/extended-yale-face-database-b-b (free for research)",
    ),
    "agedb-30": Layout(
        """\
agedb_30.bin                           the 6,000 pairs with their images
agedb-30/images/...                    or aligned crops of 112 x 112
agedb-30/pairs.csv                     with path_a,path_b,same,fold (paths relative to images)""",
        "AgeDB: ibug.doc.ic.ac.uk/resources/agedb (password from its authors, for universities); "
        + _BIN.format(bin="agedb_30"),
    ),
    "calfw": Layout(
        """\
calfw.bin                              the 6,000 pairs with their images
calfw/images/<image>.jpg               or aligned crops of 112 x 112
calfw/pairs_CALFW.txt                  the official list: two lines '<image> <fold>' a pair, 0 for impostors""",
        "whdeng.cn/CALFW (free); " + _BIN.format(bin="calfw"),
    ),
    "cplfw": Layout(
        """\
cplfw.bin                              the 6,000 pairs with their images
cplfw/images/<image>.jpg               or aligned crops of 112 x 112
cplfw/pairs_CPLFW.txt                  the official list: two lines '<image> <fold>' a pair, 0 for impostors""",
        "whdeng.cn/CPLFW (free); " + _BIN.format(bin="cplfw"),
    ),
    "kface": Layout(
        """\
kface/images/<id>/S001/L1/E01/C1.jpg   aligned crops
kface/kface.Q1.txt .. kface.Q4.txt     its pair lists""",
        "K-FACE: AI Hub of Korea (application, residents of Korea); the lists: github.com/Jung-Jun-Uk/mixface",
    ),
    "ijbb": Layout(
        """\
ijbb/images/<image>                    227,630 aligned crops of 112 x 112, named as in the list
ijbb/meta/ijbb_face_tid_mid.txt        image, template, medium
ijbb/meta/ijbb_template_pair_label.txt the 8,010,270 pairs
ijbb/meta/ijbb_name_5pts_score.txt     landmarks and detector scores; for the pooling 'insightface'
ijbb/meta/ijbb_1N_gallery_S1.csv, ijbb_1N_gallery_S2.csv, ijbb_1N_probe_mixed.csv   for 1:N""",
        "NIST has not handed out IJB-B since 14 March 2023; who holds a license has it from nist.gov/programs-projects/"
        "face-challenges. The lists are those of insightface's recognition/_evaluation_/ijb",
    ),
    "ijbc": Layout(
        """\
ijbc/images/<image>                    469,375 aligned crops of 112 x 112, named as in the list
ijbc/meta/ijbc_face_tid_mid.txt        image, template, medium
ijbc/meta/ijbc_template_pair_label.txt the 15,658,489 pairs
ijbc/meta/ijbc_name_5pts_score.txt     landmarks and detector scores; for the pooling 'insightface'
ijbc/meta/ijbc_1N_gallery_G1.csv, ijbc_1N_gallery_G2.csv, ijbc_1N_probe_mixed.csv   for 1:N""",
        "NIST has not handed out IJB-C since 14 March 2023; who holds a license has it from nist.gov/programs-projects/"
        "face-challenges. The lists are those of insightface's recognition/_evaluation_/ijb",
    ),
    "megaface": Layout(
        """\
megaface/facescrub_images/<path>       3,530 aligned crops of 112 x 112, paths as in the list
megaface/megaface_images/<path>        1,000,000 distractors likewise
megaface/templatelists/facescrub_features_list.json                  lists of the devkit
megaface/templatelists/megaface_features_list.json_1000000_1
megaface/facescrub_noises.txt          lists of noise, for 'megaface-refined'
megaface/megaface_noises.txt""",
        "megaface.cs.washington.edu was closed in 2020; who has it, has images and devkit. The lists of noise: "
        "those of insightface's recognition/_evaluation_/megaface",
    ),
    "rfw": Layout(
        """\
rfw/African_test.bin, Asian_test.bin, Caucasian_test.bin, Indian_test.bin
rfw/txts/<group>/<group>_pairs.txt     or the lists with
rfw/data/<group>/<person>/<person>_0001.jpg   aligned crops of 112 x 112""",
        "RFW: whdeng.cn/RFW (application by mail, for research)",
    ),
    "tinyface": Layout(
        """\
tinyface/Testing_Set/gallery_match_img_ID_pairs.mat
tinyface/Testing_Set/probe_img_ID_pairs.mat
tinyface/Testing_Set/{Gallery_Match,Probe,Gallery_Distractor}/<image>.jpg
tinyface/aligned/{Gallery_Match,Probe,Gallery_Distractor}/<image>.jpg   taken instead where it is there""",
        "qmul-tinyface.github.io (free for research)",
    ),
    "blufr": Layout(
        """\
lfw/images/<Name>/<Name>_NNNN.jpg      aligned crops of 112 x 112, all of LFW
lfw/blufr_lfw_config.mat               the official trials""",
        "www.cbsr.ia.ac.cn/users/scliao/projects/blufr (free). 'blufr-like' draws trials of its own and needs no file",
    ),
}
"""The sets by name. Several benchmarks may share one."""

_USUAL = ("lfw", "cfp")


def usual_layout() -> str:
    """The sets that most people have, for messages about the data root itself."""
    trees = "\n".join(LAYOUTS[name].tree for name in _USUAL)
    indented = "\n".join(f"  {line}" for line in trees.splitlines())
    return f"<data root>/\n{indented}\n  ... others: unpg evaluate --layout <benchmark>"


def set_of(benchmark: str) -> str | None:
    """The set that a benchmark's name begins with: ``ijbc`` of ``ijbc-1n``; None if it is of no set."""
    return next((name for name in LAYOUTS if benchmark == name or benchmark.startswith(f"{name}-")), None)


def layout_text(set_name: str) -> str:
    """Tree and source of a set, for messages."""
    layout = LAYOUTS[set_name]
    indented = "\n".join(f"  {line}" for line in layout.tree.splitlines())
    return f"<data root>/\n{indented}\nWhere one gets it: {layout.source}."


def missing_set(root: Path, benchmark: str, set_name: str, missing: str) -> DataError:
    """The error for data that are not there."""
    return DataError(
        f"The benchmark {benchmark!r} needs {missing} in {root}. Expected layout (UNPG_DATA or --data names the data "
        f"root):\n{layout_text(set_name)}"
    )


def require(root: Path, benchmark: str, set_name: str, *parts: str) -> None:
    """Raise unless each of ``parts`` is there.

    Raises:
        DataError: One is missing; shows the layout of the set and where one gets it.
    """
    missing = [part for part in parts if not (root / part).exists()]
    if missing:
        raise missing_set(root, benchmark, set_name, ", ".join(missing))
