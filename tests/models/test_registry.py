"""Models are found by their file, and what does not fit is refused with its reason."""

import pytest

from posegrid.models.registry import build_model, config_class, model_names


def test_names_are_the_files_with_build():
    names = model_names()
    assert names == sorted(names)
    assert {"mlp", "mixste", "diffhpe"} <= set(names)
    assert not {"interface", "registry", "losses", "flip"} & set(names)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"'mixst' is unknown; did you mean 'mixste'\? Known: .*diffhpe, .*mlp"):
        config_class("mixst")
    with pytest.raises(ValueError, match=r"'xyz' is unknown\. Known: "):
        config_class("xyz")


def test_wrong_configuration_and_conditioner(pose):
    mlp, diffhpe = config_class("mlp"), config_class("diffhpe")
    with pytest.raises(ValueError, match=r"needs a posegrid\.models\.diffhpe\.Config"):
        build_model("diffhpe", mlp(), pose)
    with pytest.raises(ValueError, match="given no conditioner"):
        build_model("diffhpe", diffhpe(conditioning="lifter"), pose)
    with pytest.raises(ValueError, match="does not read"):
        build_model("diffhpe", diffhpe(), pose, build_model("mlp", mlp(), pose))
