import pytest

from unpg.embed import Model
from unpg.errors import ConfigError
from unpg.transforms import Preprocessing


def test_the_default_preprocessing_fits_the_backbone():
    model = Model.create("small_iresnet", dim=8, input_size=[32, 24], widths=(4, 4, 4, 4), info={"note": 1})
    assert model.preprocessing == Preprocessing(size=(32, 24))
    assert (model.backbone.dim, model.backbone.input_size) == (8, (32, 24))
    assert (model.kind, dict(model.settings), model.info) == (
        "small_iresnet",
        {"widths": (4, 4, 4, 4)},
        {"note": 1},
    )


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"preprocessing.size is \(32, 32\).*input_size is \(32, 24\)"):
        Model.create("small_iresnet", input_size=(32, 24), preprocessing=Preprocessing(size=(32, 32)))


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'widths'"):
        Model.create("small_iresnet", width=(4, 4, 4, 4))
