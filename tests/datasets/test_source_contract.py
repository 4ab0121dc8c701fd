"""What every data source must offer; a new file in `datasets/sources` is picked up by itself."""

import json
import pickle
from dataclasses import asdict, fields, is_dataclass

import pytest

from posegrid.datasets.options import from_values
from posegrid.datasets.prepare import prepare, source_module, source_names
from posegrid.datasets.schema import Protocol
from posegrid.datasets.skeletons import SKELETONS


@pytest.mark.parametrize("name", source_names())
def test_source_has_the_common_parts(name):
    source = source_module(name)
    assert isinstance(source.PROTOCOL, Protocol)
    assert not set(source.PROTOCOL.train) & set(source.PROTOCOL.test)
    assert SKELETONS[source.SKELETON.name] is source.SKELETON
    assert "\n" not in source.DESCRIPTION
    config = source.Config()
    assert is_dataclass(config)
    assert source.Config.__dataclass_params__.frozen
    assert all(field.kw_only for field in fields(config))
    assert from_values(source.Config, json.loads(json.dumps(asdict(config))), "test") == config
    assert pickle.loads(pickle.dumps(config)) == config
    for function in (source.list_recordings, source.read_recording, source.protocol):
        assert callable(function)


@pytest.mark.parametrize("name", source_names())
def test_source_says_what_is_missing(name, tmp_path):
    source = source_module(name)
    with pytest.raises(ValueError, match=str(tmp_path)):
        source.list_recordings(source.Config(), tmp_path)


def test_prepared_store_does_not_depend_on_processes(tmp_path):
    options = {"seconds": 1.0, "actions": ["walk", "wave"], "train_subjects": 2, "test_subjects": 1}
    one = prepare("synthetic", None, tmp_path / "one", options=options)
    two = prepare("synthetic", None, tmp_path / "two", options=options, processes=2)
    assert one.content_hash == two.content_hash
    assert {sequence.split for sequence in one.sequences} == {"train", "held_out", "test"}
