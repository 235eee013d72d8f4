import numpy as np
import pytest
from PIL import Image

from unpg.data import FolderSet
from unpg.data.synthetic.camera import TEMPLATE
from unpg.data.yaleb import YaleBSet
from unpg.errors import DataError

# Medians over the 38 frontally lit crops, in pixels of 168 x 192, found once by a detector.
SEEN = np.array([[21.6, 20.4], [88.9, 21.0], [53.0, 55.8], [27.8, 88.5], [82.2, 89.7]]) * [168 / 112, 192 / 112]


@pytest.mark.parametrize("size", [(168, 192), (112, 112)])
def test_landmarks_of_a_crop_come_where_the_template_has_them(tmp_path, size):
    for point, (x, y) in enumerate(SEEN):
        spots = np.hypot(*(np.indices((192, 168))[::-1] - np.array([x, y])[:, None, None])) < 4
        crop = Image.fromarray((255 * spots).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        (tmp_path / "yaleB01").mkdir(exist_ok=True)
        (tmp_path / "yaleB02").mkdir(exist_ok=True)
        crop.save(tmp_path / "yaleB01" / f"{point}.png")
        crop.save(tmp_path / "yaleB02" / f"{point}.png")
    images = YaleBSet(tmp_path)
    assert len(images) == 10
    assert list(images.identities) == ["yaleB01", "yaleB02"]
    for point, (x, y) in enumerate(TEMPLATE):
        picture = images.read(point).astype(float)
        assert picture.shape == (112, 112, 3)
        weight = picture[..., 0] / picture[..., 0].sum()
        rows, columns = np.indices(weight.shape)
        assert np.hypot((weight * columns).sum() - x, (weight * rows).sum() - y) < 1.5


def test_another_place_is_another_set(tmp_path, monkeypatch):
    for who in ("a", "b"):
        (tmp_path / who).mkdir()
        Image.new("L", (168, 192), 128).save(tmp_path / who / "0.png")
    before = YaleBSet(tmp_path).digest()
    assert before == YaleBSet(tmp_path).digest() != FolderSet(tmp_path).digest()
    monkeypatch.setattr("unpg.data.yaleb._LEFT", 20)
    assert YaleBSet(tmp_path).digest() != before
    (tmp_path / "b" / "0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"b/0\.png"):
        YaleBSet(tmp_path).read(1)


@pytest.mark.data
def test_the_set_has_its_people(faces):
    if not (faces / "yaleb").is_dir():
        pytest.skip(f"needs {faces / 'yaleb'}")
    images = YaleBSet(faces / "yaleb")
    assert len(images.identities) == 38
    assert len(images) == 2414
    lit = images.read(next(i for i in range(len(images)) if "P00A+000E+00" in images.name(i)))
    assert lit[45:95, 35:78].mean() > 2 * lit.mean()
