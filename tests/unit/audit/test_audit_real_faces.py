import pytest

from unpg.audit import Limits, Side, Threshold, audit, judge_known, read_known
from unpg.data import list_set, select_identities
from unpg.embed import embed
from unpg.export import import_weights

MATCH, FAR = 0.6421, 0.3115  # FMR 1e-6 and 1e-2 on all of LFW (docs/how-to/data.md)


@pytest.mark.data
def test_people_of_two_real_sets_are_found_and_nobody_else(faces, tmp_path):
    weights = faces / "weights" / "mobilefacenet_xiaoccer_068.ckpt"
    listed = faces / "cfp" / "overlap_with_lfw.tsv"
    if not weights.exists() or not listed.exists():
        pytest.skip("no MobileFaceNet weights or no cfp/overlap_with_lfw.tsv in the data root")
    known = [entry for entry in read_known(listed) if entry.group == "name"][:10]
    cfp = [entry.identity_a for entry in known] + ["003", "004", "005"]
    lfw = [entry.identity_b for entry in known] + ["Aaron_Peirsol", "Abdel_Nasser_Assidi", "Ai_Sugiyama"]
    model = import_weights(weights, preset="mobilefacenet-xiaoccer")
    sides = []
    for name, people in (("cfp", cfp), ("lfw", lfw)):
        lines = [f"{image}\t{who}\n" for who in people for image in (faces / name / "images" / who).rglob("*.jpg")]
        (tmp_path / f"{name}.txt").write_text("".join(lines))
        images = select_identities(list_set(tmp_path / f"{name}.txt"), people)
        sides.append(Side(name, images, embed(model, images, batch_size=16)))
    found = audit(sides[0], Limits(Threshold(MATCH), Threshold(FAR)), sides[1])
    judged = judge_known(found, known, listed)
    assert {match.identity_a for match in judged if not match.found} == {"022", "033"}
    assert len(found.shared) == 8
    assert found.split == []
    assert all(noise.verdict == "nobody" and "profile" in noise.image for noise in found.label_noise)
