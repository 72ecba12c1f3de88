"""Saving and loading networks: the same network back, and one sentence for every damaged file."""

import json
import os

import h5py
import numpy as np
import pytest

from snnsim.errors import SnnsimFileError
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.sealed import read_sealed, seal


def rich_network():
    rng = np.random.default_rng(0)
    sparse = Sparse.from_triples([0, 0, 2], [1, 1, 0], [0.5, -0.25, 1e-300], (2, 3))
    cuba = CubaLIF.from_step(dt=0.001, beta=rng.random(2), alpha=0.3, drive_step=0.1, t_ref=0.002, strict=True)
    return Network(
        populations=(
            Population("if", 3, IF(reset="subtract", reset_amount=np.array([0.5, 1, 2]))),
            Population("lif", 3, LIF.from_step(dt=0.001, beta=rng.random(3)), start_step=2, stop_step=9),
            Population("cuba", 2, cuba),
            Population("ad", 2, AdaptiveLIF(adapt_spike=0.1)),
            Population("li", 2, LI()),
            Population("cubali", 2, CubaLI()),
        ),
        projections=(
            Projection("in", "if", rng.normal(size=(3, 4)), rng.random((3, 4))),
            Projection("if", "lif", rng.normal(size=(3, 3)), rng.random((1, 3))),
            Projection("lif", "cuba", sparse, rng.random(3)),
            Projection("lif", "ad", sparse, 0.001),
            Projection("ad", "li", np.ones((2, 2)), np.ones((2, 1))),
            Projection("ad", "cubali", np.ones((2, 2))),
        ),
        inputs=(Input("in", 4), Input("unused", 1)),
        readout=Readout("li", "v", "mean", 3),
        dt=0.001,
        notes={"made": ["by", 1, 2.5, None], "ü": True},
    )


@pytest.fixture
def path(tmp_path):
    return rich_network().save(tmp_path / "net.snn.h5")


def change(path, edit):
    """Change the HDF5 part and seal the file again, as a hostile writer would."""
    with h5py.File(path, "r+") as file:
        edit(file)
    seal(path, "snnsim network")


def change_manifest(path, edit):
    def rewrite(file):
        manifest = json.loads(bytes(file["manifest"][()]))
        text = edit(manifest)
        del file["manifest"]
        data = text if isinstance(text, bytes) else json.dumps(manifest).encode()
        file["manifest"] = np.frombuffer(data, dtype=np.uint8)

    change(path, rewrite)


def test_round_trip_is_exact(path):
    net = rich_network()
    back = Network.load(path)
    assert back == net
    assert back.notes == net.notes
    assert back.population("cuba") == net.population("cuba")
    assert back.projections[2].weight.weight.tobytes() == net.projections[2].weight.weight.tobytes()


def test_equal_networks_give_equal_bytes(path, tmp_path):
    again = Network.load(path).save(tmp_path / "again.snn.h5")
    assert again.read_bytes() == path.read_bytes()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(SnnsimFileError, match="No such file"):
        Network.load(tmp_path / "nothing.snn.h5")
    with pytest.raises(SnnsimFileError, match="Is a directory"):
        Network.load(tmp_path)


def test_saving_to_an_impossible_place_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SnnsimFileError, match="cannot be written"):
        rich_network().save(tmp_path / "file" / "net.snn.h5")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not a snnsim network"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "not a snnsim network"),
        (b"snnsim network", "512 bytes are damaged"),
        (b"snnsim network 2 sha256 " + b"0" * 64 + b"\n" + bytes(423), "schema 2 .* install a newer"),
        (b"snnsim network 0 sha256 " + b"0" * 64 + b"\n" + bytes(423), "never existed"),
        (b"snnsim network 1 sha256 " + b"0" * 64 + b"\n" + bytes(423), "sha256 mismatch"),
    ],
)
def test_wrong_files(tmp_path, data, match):
    wrong = tmp_path / "wrong.snn.h5"
    wrong.write_bytes(data)
    with pytest.raises(SnnsimFileError, match=match):
        Network.load(wrong)


def test_one_changed_byte_anywhere_is_found(path):
    data = path.read_bytes()
    for place in np.random.default_rng(3).integers(0, len(data), 60):
        bad = bytearray(data)
        bad[place] ^= 0x10
        path.write_bytes(bytes(bad))
        with pytest.raises(SnnsimFileError):
            Network.load(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SnnsimFileError, match="sha256 mismatch"):
        Network.load(path)


def test_header_that_cannot_be_hdf5(path):
    block = path.read_bytes()[:512]
    path.write_bytes(block + b"junk" * 500)
    seal(path, "snnsim network")
    with pytest.raises(SnnsimFileError, match="HDF5 cannot read it"):
        Network.load(path)


def _set(place, value):
    def edit(manifest):
        record = manifest
        for key in place[:-1]:
            record = record[key]
        record[place[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (_set(["dt"], "fast"), "manifest dt: expected float or int, got str"),
        (_set(["dt"], True), "got bool"),
        (_set(["dt"], 10**400), "declares more than can be read"),
        (_set(["dt"], -1), "content: dt: expected a positive"),
        (_set(["schema"], 2), "in schema 1"),
        (_set(["extra"], 1), "manifest extra: is not known in this schema"),
        (_set(["populations"], {}), "populations: expected list, got dict"),
        (_set(["populations", 0], 3), "populations\\[0\\]\\.: expected an object"),
        (_set(["populations", 0, "size"], 10**12), "size: expected 1 to"),
        (_set(["populations", 0, "size"], 7), "are for 3 neurons, its size is 7"),
        (_set(["populations", 4, "size"], 2_000_000_000), "weight has shape"),
        (_set(["populations", 0, "neuron", "kind"], "HH"), "expected one of"),
        (_set(["populations", 0, "neuron", "parameters", "v_threshold"], "1"), "v_threshold: expected dict or float"),
        (_set(["populations", 0, "neuron", "parameters", "v_threshold"], None), "v_threshold: expected"),
        (_set(["populations", 1, "neuron", "parameters", "tau"], 1), "parameters.tau: is not known"),
        (_set(["populations", 1, "neuron", "parameters", "beta"], 1.5), "within \\[0, 1\\]"),
        (_set(["populations", 1, "neuron", "parameters", "reset"], "soft"), "expected 'zero' or 'subtract'"),
        (_set(["populations", 1, "neuron", "parameters", "strict"], 1), "expected bool, got int"),
        (_set(["projections", 0, "weight", "dense", "array"], 99), "expected 0 to"),
        (_set(["projections", 0, "weight", "dense", "array"], -1), "expected 0 to"),
        (_set(["projections", 0, "delay"], [1]), "delay: expected dict or float or int, got list"),
        (_set(["projections", 2, "weight", "sparse", "shape"], [2]), "expected \\(n_target, n_source\\)"),
        (_set(["projections", 2, "weight", "sparse", "shape"], ["a", 3]), "expected an integer"),
        (_set(["projections", 0, "source"], "nobody"), "'nobody' is not in the network"),
        (_set(["arrays", 0, "shape"], [10**9, 10**9]), "arrays/0: expected shape"),
        (_set(["arrays", 0, "dtype"], "<f4"), "arrays/0: expected <f4"),
        (_set(["arrays", 0, "sha256"], "0" * 64), "arrays/0: sha256 mismatch"),
        (_set(["readout", "reduce"], 3), "expected one of"),
        (lambda manifest: b"{", "not readable JSON"),
        (lambda manifest: b"[]", "expected a JSON object"),
        (lambda manifest: b"[" * 100_000, "not readable JSON"),
        (lambda manifest: b'{"dt": NaN}', "NaN is not JSON"),
        (lambda manifest: manifest.pop("inputs") and None, "manifest inputs: is missing"),
    ],
)
def test_bad_manifests(path, edit, match):
    change_manifest(path, edit)
    with pytest.raises(SnnsimFileError, match=match):
        Network.load(path)


def _drop(name):
    return lambda file: file.__delitem__(name)


def _huge(file):
    del file["arrays/0"]
    file.create_dataset("arrays/0", shape=(100_000, 50_000), dtype="f8")


def _chunked(file):
    data = file["arrays/0"][()]
    del file["arrays/0"]
    file.create_dataset("arrays/0", data=data, chunks=True)


def _group(file):
    del file["arrays/0"]
    file.create_group("arrays/0")


def _soft(file):
    del file["arrays/0"]
    file["arrays/0"] = h5py.SoftLink("/arrays/1")


def _external(file):
    del file["arrays"]
    file["arrays"] = h5py.ExternalLink("/etc/passwd", "/")


def _text(file):
    del file["manifest"]
    file["manifest"] = "text"


def _nan(file):
    file["arrays/0"][...] = np.nan


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (_drop("manifest"), "manifest: is missing"),
        (_drop("arrays/2"), "arrays/2: is missing"),
        (_drop("arrays"), "arrays/0: is missing"),
        (_huge, "declares 40000000000 bytes"),
        (_chunked, "expected a contiguous data set"),
        (_group, "expected a data set"),
        (_soft, "is a link"),
        (_external, "is a link"),
        (_text, "manifest: expected plain numbers"),
        (_nan, "sha256 mismatch"),
    ],
)
def test_bad_arrays(path, edit, match):
    change(path, edit)
    with pytest.raises(SnnsimFileError, match=match):
        Network.load(path)


def test_errors_name_the_file_on_one_line(path):
    change_manifest(path, _set(["dt"], "fast"))
    with pytest.raises(SnnsimFileError) as caught:
        Network.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_hdf5_part_is_never_parsed_in_this_process(path, monkeypatch):
    monkeypatch.setattr(h5py, "File", None)
    assert Network.load(path) == rich_network()


def spin(reader):
    while True:
        assert reader.manifest


def crash(reader):
    os.abort()


def hunger(reader):
    return bytearray(60 << 30)


@pytest.mark.parametrize(
    ("build", "match"),
    [(spin, "took longer than"), (crash, "crashed the library"), (hunger, "declares more than can be read")],
)
def test_what_a_file_does_to_its_reader_is_one_sentence(path, build, match):
    with pytest.raises(SnnsimFileError, match=match):
        read_sealed(path, "snnsim network", 1, "Network.save", build)
    assert Network.load(path) == rich_network()
