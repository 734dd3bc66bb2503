import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from zsic.core.errors import ModelError
from zsic.core.spec import ModelSpec, StoreSpec
from zsic.models.checkpoint import Checkpoint, resolve


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def _resolve(folder: Path) -> Checkpoint:
    return resolve(ModelSpec(name=str(folder)))


def _edit(path: Path, **fields: object) -> None:
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | fields))


def test_a_local_folder(tiny_checkpoint: Path) -> None:
    checkpoint = _resolve(tiny_checkpoint)
    assert checkpoint.name == str(tiny_checkpoint)
    assert checkpoint.folder == tiny_checkpoint
    assert checkpoint.model_type == checkpoint.family.model_type == "clip"
    assert checkpoint.revision is None
    assert len(checkpoint.digest) == 64
    assert checkpoint.on_this_machine() is checkpoint


def test_digest_is_of_contents_not_of_place(tiny_checkpoint: Path, folder: Path) -> None:
    assert _resolve(folder).digest == _resolve(tiny_checkpoint).digest
    (folder / "README.md").write_text("not part of the answer")
    (folder / "open_clip_model.safetensors").write_bytes(b"nor this")
    assert _resolve(folder).digest == _resolve(tiny_checkpoint).digest


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_digest_changes_with_each_file(tiny_checkpoint: Path, folder: Path, file: str) -> None:
    with (folder / file).open("ab") as stream:
        stream.write(b"\n")
    assert _resolve(folder).digest != _resolve(tiny_checkpoint).digest


def test_no_such_folder() -> None:
    with pytest.raises(ModelError, match=r"model\.name: there is no folder \./nowhere"):
        resolve(ModelSpec(name="./nowhere"))


def test_a_hub_id_that_cannot_be_fetched_says_what_was_tried() -> None:
    with pytest.raises(ModelError) as caught:
        resolve(ModelSpec(name="zsic-tests/no-such-checkpoint", revision="v9"))
    message = str(caught.value)
    assert "zsic-tests/no-such-checkpoint (revision v9) failed" in message
    assert "zsic model pull zsic-tests/no-such-checkpoint --output DIR" in message


def test_revision_is_for_the_hub(tiny_checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.revision is v1, but .* is a local folder"):
        resolve(ModelSpec(name=str(tiny_checkpoint), revision="v1"))


def test_weights_as_pickle_only_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"only as pytorch_model\.bin, a pickle; run `zsic model pull .* --output DIR`"
    ):
        _resolve(folder)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors; run `zsic model pull"):
        _resolve(folder)


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Evil"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "other/repo--modeling.Evil"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "tok.Evil"]}}),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "img.Evil"}}),
        ("processor_config.json", {"image_processor": {"auto_map": {"AutoImageProcessor": "img.Evil"}}}),
    ],
)
def test_code_in_a_checkpoint_is_refused(folder: Path, file: str, fields: dict[str, object]) -> None:
    _edit(folder / file, **fields)
    with pytest.raises(ModelError, match=rf"run its own Python \({file} has auto_map\)"):
        _resolve(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "blip"}, "random weights"),
        ({"model_type": "siglip2"}, "NaFlex"),
        ({"model_type": "llama"}, "not supported; supported are"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
    ],
)
def test_refused_configs(folder: Path, fields: dict[str, object], message: str) -> None:
    _edit(folder / "config.json", **fields)
    with pytest.raises(ModelError, match=message):
        _resolve(folder)


def test_an_adapter_is_refused(folder: Path) -> None:
    _edit(folder / "adapter_config.json", base_model_name_or_path="somewhere/else")
    with pytest.raises(ModelError, match="merge it into its model"):
        _resolve(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 100_000, '{"a": ' * 100_000])
def test_a_config_that_is_no_json_object(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"config\.json of .* is not"):
        _resolve(folder)


def test_shards_must_be_there_and_in_the_folder(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    _edit(folder / "model.safetensors.index.json", weight_map=index)
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        _resolve(folder)
    _edit(folder / "model.safetensors.index.json", weight_map={"a": "../elsewhere.safetensors"})
    with pytest.raises(ModelError, match=r"lacks \.\./elsewhere"):
        _resolve(folder)


@pytest.mark.parametrize("weight_map", [["model-1.safetensors"], {"a": 5}, {"a": ["x"]}, None])
def test_an_index_that_makes_no_sense(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors").unlink()
    _edit(folder / "model.safetensors.index.json", weight_map=weight_map)
    with pytest.raises(ModelError, match="has no weight_map; fetch it again"):
        _resolve(folder)


def test_a_folder_that_was_pulled_must_be_as_it_was(folder: Path) -> None:
    digest = _resolve(folder).digest
    _edit(folder / "zsic.json", id="a/b", revision="abc", digest=digest)
    assert _resolve(folder).revision == "abc"
    with (folder / "tokenizer.json").open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(ModelError, match="have changed since `zsic model pull`"):
        _resolve(folder)


def test_another_machine_must_have_the_same_files(tiny_checkpoint: Path, folder: Path) -> None:
    there = _resolve(tiny_checkpoint)
    gone = dataclasses.replace(there, folder=Path("/nowhere"))
    assert gone.on_this_machine().folder == tiny_checkpoint
    (folder / "vocab.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="put the same files on every machine"):
        dataclasses.replace(gone, name=str(folder)).on_this_machine()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_checkpoint_may_live_in_the_lake(endpoint: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
    fs.mkdir("lake")
    fs.put(f"{tiny_checkpoint}/", "lake/models/tiny/", recursive=True)
    fs.pipe("lake/models/tiny/README.md", b"never fetched")
    store = StoreSpec(s3_endpoint_url=endpoint)
    spec = ModelSpec(name="s3://lake/models/tiny")
    checkpoint = resolve(spec, store)
    assert checkpoint.digest == _resolve(tiny_checkpoint).digest
    assert checkpoint.folder.is_relative_to(tmp_path / "cache")
    assert not (checkpoint.folder / "README.md").exists()
    assert resolve(spec, store).folder == checkpoint.folder

    shutil.rmtree(checkpoint.folder)  # a worker that has not fetched it yet
    assert checkpoint.on_this_machine() == checkpoint

    with pytest.raises(ModelError, match="holds no checkpoint"):
        resolve(ModelSpec(name="s3://lake/models/other"), store)
    with pytest.raises(ModelError, match="holds no checkpoint"):
        resolve(ModelSpec(name="s3://no-such-bucket/x"), store)


@pytest.mark.parametrize("url", ["nonsense://lake/models", "file:///no/such/folder"])
def test_a_url_that_leads_nowhere(url: str) -> None:
    with pytest.raises(ModelError, match=f"model.name: {url}"):
        resolve(ModelSpec(name=url))


def test_a_checkpoint_in_the_hubs_cache_needs_no_network(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "models--zsic-tests--tiny"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    shutil.copytree(tiny_checkpoint, root / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for revision in (None, "main", commit):
        checkpoint = resolve(ModelSpec(name="zsic-tests/tiny", revision=revision))
        assert checkpoint.revision == commit
        assert checkpoint.digest == _resolve(tiny_checkpoint).digest
    elsewhere = dataclasses.replace(checkpoint, folder=Path("/nowhere"))
    assert elsewhere.on_this_machine() == checkpoint
