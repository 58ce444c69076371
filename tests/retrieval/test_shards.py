"""The files of an index: damage of any byte, files of version 0.1, builds that share a folder, disks that are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from indexes import COMPRESSED, PASSAGES, QUERIES, encode_queries, exact_model, folder_bytes, make_passages, spoil
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from optical_hf import OpticalTeacher
from optical_hf.retrieval.index import build, shards
from optical_hf.retrieval.index.build import PassageIndex, build_index
from optical_hf.retrieval.index.shards import IndexShard, checksum_of, fingerprint, locked, settings_of, write_tensors


def flip(path: Path, position: int, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= bits
    path.write_bytes(content)


def flip_tensor(path: Path, name: str, bits: int = 1) -> None:
    """Change a tensor's last number by its lowest bit: nothing but a checksum can tell."""
    kind, shape, position = IndexShard.open(path).tensors[name]
    flip(path, position + (torch.Size(shape).numel() - 1) * kind().itemsize, bits)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> PassageIndex:
    """Three shards of 20 passages, with every kind of file. Do not write to its folder."""
    return build_index(exact_model(16), make_passages(20), tmp_path_factory.mktemp("s"), shard_size=7, **COMPRESSED)


@pytest.mark.parametrize("name", ["index.json", "rotation.safetensors", "shard-00001.json", "shard-00001.safetensors"])
def test_a_flipped_byte_anywhere_is_named_or_changes_nothing(small, tmp_path, name):
    queries, pooled = exact_model(16).encode_both(["a", "ten words"], "query")
    folder = Path(shutil.copytree(small.folder, tmp_path / "copy"))

    def run() -> list[object]:
        loaded = PassageIndex.load(folder)
        return [loaded.search(queries, ["q1", "q2"]), loaded.search_pooled(pooled, ["q1", "q2"])]

    expected, whole = run(), (folder / name).read_bytes()
    caught = 0
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        for bits in (1, 0x80):
            flip(folder / name, position, bits)
            try:
                assert run() == expected, (position, bits)
            except ValueError as error:
                caught += 1
                assert name in str(error), (position, bits)
            (folder / name).write_bytes(whole)
    assert caught > 200  # the rest is space in headers, and what index.json says twice


@pytest.mark.parametrize("name", ["tokens", "offsets", "pooled", "scales"])
@pytest.mark.parametrize("memory_gb", [4.0, 0.0002])
def test_a_flipped_bit_of_every_tensor_is_named(small, tmp_path, name, memory_gb):
    queries, pooled = exact_model(16).encode_both(["a", "ten words"], "query")
    folder = Path(shutil.copytree(small.folder, tmp_path / "copy"))
    path = folder / "shard-00001.safetensors"
    if name == "offsets":
        flip(path, IndexShard.open(path).tensors[name][2] + 8)
    else:
        flip_tensor(path, name)
    loaded = PassageIndex.load(folder)
    message = rf"{path} is damaged.*'{name}' has another checksum.*Delete shard-00001\.\* and build"
    with pytest.raises(ValueError, match=message if name != "offsets" else f"{path} is damaged"):
        if name == "pooled":
            loaded.search_pooled(pooled, ["q1", "q2"], memory_gb=memory_gb)
        else:
            loaded.search(queries, ["q1", "q2"], memory_gb=memory_gb)
    # What is sound is found all the same.
    assert len(loaded.shards[0].token_vectors(loaded.shards[0].offsets())) == 7


def test_vectors_are_compared_once_for_each_time_an_index_is_opened(small, tmp_path, monkeypatch):
    _, queries = exact_model(16).encode_both(["a"], "query")
    folder = Path(shutil.copytree(small.folder, tmp_path / "copy"))
    begun: list[str] = []
    begin = shards._begin
    monkeypatch.setattr(shards, "_begin", lambda dtype, shape: begun.append(dtype) or begin(dtype, shape))
    loaded = PassageIndex.load(folder)
    begun.clear()
    expected = loaded.search_pooled(queries, ["q"])
    assert begun == ["float16"] * 3
    flip_tensor(folder / "shard-00001.safetensors", "pooled", 0x80)
    assert loaded.search_pooled(queries, ["q"]) != expected
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is damaged"):
        PassageIndex.load(folder).search_pooled(queries, ["q"])


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "5", "null", "[" * 100_000, '{"model": {}, "role": "document", "options": {}}', "\xff",
        '{"model": 1, "role": 2, "options": {"shard_size": 1, "pool_factor": 1, "dim": 1, "dtype": 1, "single": 1}}',
        '{"shards": []}', '{"shards": 5}', '{"shards": [5]}', '{"shards": [{"passages": "1", "fingerprint": ""}]}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named(teacher, copy, content):
    if content.startswith('{"shards"'):
        content = json.dumps(json.loads((copy / "index.json").read_text()) | json.loads(content))
    (copy / "index.json").write_bytes(content.encode("latin-1"))
    for use in (PassageIndex.load, lambda folder: build_index(teacher, PASSAGES, folder, shard_size=5)):
        with pytest.raises(ValueError, match=rf"{copy}/index\.json is damaged, or not an index's .* Delete the file"):
            use(copy)
    (copy / "index.json").unlink()
    assert len(build_index(teacher, PASSAGES, copy, shard_size=5)) == 23


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "\xff\xfe", "[" * 100_000, '{"passages": 1, "docids": 2}', "OTHER"]
)
def test_damaged_docids_are_named(index, teacher, copy, content):
    path = copy / "shard-00003.json"
    if content == "numbers":
        content = json.dumps(json.loads(path.read_text()) | {"docids": [1, 2, 3, 4, 5]})
    path.write_bytes(content.encode("latin-1"))
    queries, _ = encode_queries(teacher)
    for use in (
        lambda: PassageIndex.load(copy).search(queries, list(QUERIES)),
        lambda: build_index(teacher, PASSAGES, copy, shard_size=5),
    ):
        with pytest.raises(ValueError, match=rf"{path} is damaged or missing .*Delete shard-00003\.\*"):
            use()
    for each in copy.glob("shard-00003.*"):
        each.unlink()
    build_index(teacher, PASSAGES, copy, shard_size=5, batch_size=2)
    assert folder_bytes(copy) == folder_bytes(index.folder)


@pytest.mark.parametrize("how", ["cut", "cut in the header", "garbage", "empty", "gone", "other file"])
def test_a_damaged_rotation_is_named_and_made_again(small, tmp_path, how):
    folder = Path(shutil.copytree(small.folder, tmp_path / "copy"))
    spoil(folder / "rotation.safetensors", how)
    with pytest.raises(ValueError, match=r"rotation\.safetensors is damaged or missing .*Delete rotation\.\* and"):
        PassageIndex.load(folder)
    (folder / "rotation.safetensors").unlink(missing_ok=True)
    build_index(exact_model(16), make_passages(20), folder, shard_size=7, **COMPRESSED)
    assert folder_bytes(folder) == folder_bytes(small.folder)


def test_another_rotation_does_not_fit_the_shards_that_are_there(small, tmp_path):
    folder = Path(shutil.copytree(small.folder, tmp_path / "copy"))
    entry = small.manifest["shards"][0]["fingerprint"]
    other = {"rotation": -small.rotation}
    write_tensors(folder / "rotation.safetensors", other, fingerprint(settings_of(small.manifest)), entry)
    for use in (
        lambda: PassageIndex.load(folder),
        lambda: build_index(exact_model(16), make_passages(20), folder, shard_size=7, **COMPRESSED),
    ):
        with pytest.raises(ValueError, match=r"shard-00000\.safetensors was made with another rotation .*delete"):
            use()


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"pooled": torch.ones(5, 32).half(), "tokens": torch.ones(9, 32).half()}, r"KeyError: 'offsets'"),
        ({"pooled": torch.ones(5).half()}, "not enough values to unpack"),
        ({"pooled": torch.ones(4, 32).half()}, "another shape than index.json and the others say"),
        (
            {
                "pooled": torch.ones(5, 32).half(),
                "tokens": torch.ones(9, 32).half(),
                "offsets": torch.arange(5),
            },
            "shapes of its tensors do not fit together",
        ),
        ({"pooled": torch.ones(5, 32).half(), "scales": torch.ones(5).half()}, "it holds pooled, scales, and should"),
    ],
)
def test_shards_of_a_wrong_shape_are_named(copy, tensors, message):
    path = copy / "shard-00003.safetensors"
    metadata = IndexShard.open(path).metadata
    write_tensors(path, tensors, metadata["index"], metadata["passages"])
    with pytest.raises(ValueError, match=rf"{path} is damaged or missing .*{message}"):
        PassageIndex.load(copy)


def make_old(folder: Path) -> None:
    """Turn an index into one of version 0.1, which had no checksums and did not note the tokenizer."""
    manifest = json.loads((folder / "index.json").read_text())
    del manifest["model"]["tokenizer"]
    manifest["model"]["config"]["auto_map.AutoModel"] = "modeling_optical.OpticalTeacher"  # of a saved model
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        metadata = json.loads(header["__metadata__"]["optical_hf"])
        old = {"index": fingerprint(settings_of(manifest)), "passages": metadata["passages"]}
        save_file(load_file(path), path, {"optical_hf": json.dumps(old)})
    (folder / "index.json").write_text(json.dumps(manifest))


def test_an_index_of_version_0_1_is_read_and_gone_on_with(index, teacher, copy, encoded, caplog):
    make_old(copy)
    queries, _ = encode_queries(teacher)
    expected = index.search(queries, list(QUERIES))
    encoded.clear()
    assert PassageIndex.load(copy).search(queries, list(QUERIES)) == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"{copy}: 5 of 5 shards are of version 0.1, without checksums: damage of their vectors goes unnoticed. Build "
        "the index anew in another folder to have them."
    ]
    caplog.clear()
    before = folder_bytes(copy)
    assert build_index(teacher, PASSAGES, copy, shard_size=5).search(queries, list(QUERIES)) == expected
    assert encoded == [] and folder_bytes(copy) == before
    assert sum("did not note the tokenizer: it is taken to be this model's" in text for text in caplog.messages) == 1

    caplog.clear()
    for path in copy.glob("shard-00004.*"):
        path.unlink()
    build_index(teacher, PASSAGES, copy, shard_size=5, batch_size=2)
    assert len(encoded) == 3
    assert "4 of 5 shards are of version 0.1" in caplog.text
    flip_tensor(copy / "shard-00004.safetensors", "tokens")
    with pytest.raises(ValueError, match=r"shard-00004\.safetensors is damaged"):
        PassageIndex.load(copy).search(queries, list(QUERIES))


def test_a_finished_index_is_only_read(index, teacher, copy, monkeypatch, encoded):
    (copy / ".lock").unlink()
    small = copy.with_name("compressed")
    build_index(teacher, PASSAGES, small, shard_size=5, **COMPRESSED)
    (small / ".lock").unlink()

    def state() -> dict[str, tuple[int, int]]:
        paths = [copy, small, *copy.iterdir(), *small.iterdir()]
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    def refuse(*arguments, **options):
        raise AssertionError("written to a finished index")

    for name in ("replacing", "FileLock", "save_file"):
        monkeypatch.setattr(shards, name, refuse)
    monkeypatch.setattr("optical_hf.files.replacing", refuse)
    queries, _ = encode_queries(teacher)
    before = state()
    encoded.clear()
    assert build_index(teacher, PASSAGES, copy, shard_size=5).search(queries, list(QUERIES)) == index.search(
        queries, list(QUERIES)
    )
    build_index(teacher, PASSAGES, small, shard_size=5, **COMPRESSED)
    assert state() == before and encoded == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_encoded(
    teacher, index, monkeypatch, tmp_path, encoded, begun
):
    def acquire(lock):
        raise OSError(30, "Read-only file system")

    if begun:
        (tmp_path / "index.json").write_text(json.dumps(settings_of(index.manifest)))
    monkeypatch.setattr(shards, "FileLock", lambda path: type("Lock", (), {"acquire": acquire})())
    with pytest.raises(OSError, match=rf"The folder of the index, {tmp_path}, cannot be written .*Read-only"):
        build_index(teacher, PASSAGES, tmp_path, shard_size=5)
    assert encoded == []


def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path, monkeypatch):
    def fail(*arguments):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(shards, "save_file", fail)
    with pytest.raises(OSError, match=r"shard-00000\.safetensors could not be written .*No space left"):
        build_index(exact_model(16), make_passages(20), tmp_path, shard_size=7)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "index.json", "shard-00000.json"}


def test_what_a_killed_build_left_is_removed_even_from_a_finished_index(tmp_path):
    build_index(exact_model(16), make_passages(20), tmp_path, shard_size=7)
    before = folder_bytes(tmp_path)
    left = tmp_path / ".shard-00001.safetensors.0123456789ab.partial"
    left.mkdir()
    (left / "shard-00001.safetensors").write_bytes(b"left by a kill")
    (tmp_path / "notes.partial").write_bytes(b"somebody's")
    build_index(exact_model(16), make_passages(20), tmp_path, shard_size=7)
    assert folder_bytes(tmp_path) == before | {"notes.partial": b"somebody's"}


def test_a_build_that_comes_later_uses_what_the_first_has_finished(tiny_encoder, tmp_path):
    """A second build runs from beginning to end while the first is in the middle of its passages."""
    first, second = (OpticalTeacher.from_checkpoint(tiny_encoder) for _ in range(2))
    options = {"shard_size": 5, "batch_size": 2, **COMPRESSED}
    alone = build_index(first, PASSAGES, tmp_path / "alone", **options)
    shared: list[PassageIndex] = []

    def passages():
        for number, passage in enumerate(PASSAGES):
            if number == 12:
                shared.append(build_index(second, PASSAGES, tmp_path / "shared", **options))
            yield passage

    shared.append(build_index(first, passages(), tmp_path / "shared", **options))
    queries, _ = encode_queries(first)
    runs = [each.search(queries, list(QUERIES)) for each in (alone, *shared)]
    assert runs[1:] == runs[:1] * 2
    assert folder_bytes(tmp_path / "shared") == folder_bytes(tmp_path / "alone")


@pytest.mark.parametrize("number", range(6))
def test_what_another_build_wrote_meanwhile_stays(tmp_path, monkeypatch, number):
    """Whatever a build is about to write, from manifest to manifest: another has just written it all, and differs."""
    options = {"shard_size": 7, **COMPRESSED}
    other = exact_model(16)
    encode = other.encode_both

    def differently(*given, **changes):  # as on another machine, only more so
        tokens, pooled = encode(*given, **changes)
        return [vectors.roll(1, dims=1) * 2 for vectors in tokens], pooled.roll(1, dims=1)

    other.encode_both = differently
    taken: list[int] = []
    written: dict[str, bytes] = {}

    def take(folder):
        taken.append(len(taken))
        if taken[-1] == number:
            build_index(other, make_passages(20), folder, **options)
            written.update(folder_bytes(folder))
            taken.append(-1)
        return locked(folder)

    monkeypatch.setattr(build, "locked", take)
    build_index(exact_model(16), make_passages(20), tmp_path, **options)
    assert len(written) == 9 and folder_bytes(tmp_path) == written
    assert taken[-1] == -1  # nothing was left to write


def test_a_checksum_is_of_type_shape_and_numbers():
    tensor = torch.arange(6, dtype=torch.int64).view(2, 3)
    assert checksum_of(tensor) == checksum_of(tensor.clone())
    others = [tensor.view(3, 2), tensor.view(torch.float64), tensor + 1, tensor.flip(0)]
    assert len({checksum_of(each) for each in [tensor, *others]}) == 5
    assert checksum_of(b"a") != checksum_of(b"b")
