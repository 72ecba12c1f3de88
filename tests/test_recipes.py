"""Recipes: strict reading, the published hyper-parameters, and parameter counts of the published rows."""

from __future__ import annotations

import json
import tomllib
from importlib import resources

import pytest

from snnsim.errors import InputError, SnnsimError, SnnsimFileError
from snnsim.recipes import apply_changes, list_recipes, load_recipe, recipe_from_dict

NAMES = [
    "digits-meta",
    "digits-resnet",
    "digits-vgg",
    "gsc-dcls",
    "hrsnn-digits",
    "hrsnn-reservoir",
    "hrsnn-spoken-digits",
    "hrsnn-stdp",
    "meta-study",
    "nmnist-vgg",
    "shd-adlif",
    "shd-dcls",
    "shd-eventprop",
    "shd-lif",
    "shd-rsnn",
    "speech-dcls",
    "spoken-digits",
    "ssc-dcls",
]
CLASSES = {"SHD": 20, "SSC": 35, "GSC-35": 35}


def test_all_recipes_are_there_and_load() -> None:
    assert list_recipes() == NAMES
    for name in NAMES:
        assert load_recipe(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_recipe_survives_json(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def rows() -> list[tuple[str, str, int, str]]:
    found = []
    for name in NAMES:
        for row in load_recipe(name).published:
            if row.parameters is not None:
                found.append((name, row.variant, row.parameters, row.data))
    return found


def test_the_table_of_the_paper_is_complete() -> None:
    counts = {(name, variant): count for name, variant, count, _ in rows()}
    assert counts[("shd-dcls", "2L-1KC")] == 214_016
    for name in ("ssc-dcls", "gsc-dcls"):
        assert counts[(name, "3L-1KC")] == 1_230_848
        assert counts[(name, "3L-2KC")] == 2_458_624
        assert counts[(name, "2L-1KC")] == 705_536
        assert counts[(name, "2L-2KC")] == 1_409_024


@pytest.mark.parametrize(("name", "variant", "parameters", "data"), rows())
def test_parameter_count_equals_the_published_one(name: str, variant: str, parameters: int, data: str) -> None:
    from snnsim.nn.model import build_model

    model = build_model(load_recipe(f"{name}:{variant}").model, 140, CLASSES[data], 0.01)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters


def test_shd_recipe_has_the_hyper_parameters_of_the_paper() -> None:
    recipe = load_recipe("shd-dcls")
    model, train = recipe.model, recipe.train
    assert (model.hidden, model.dropout, train.epochs, train.batch_size) == ([256, 256], 0.4, 150, 256)
    assert model.neuron.beta(0.01) == pytest.approx(1 - 1 / 1.005, abs=1e-15)
    assert model.connection.kernel_steps(0.01) == 25
    assert model.connection.first_sigma(0.01) == 12
    assert model.tail(0.01) == 36
    assert recipe.data.pool(700) == 5
    assert (train.weights.lr * train.weights.schedule.max_factor, train.weights.weight_decay) == (5e-3, 1e-5)
    assert (train.positions.lr, train.positions.weight_decay, train.positions.schedule.kind) == (0.1, 0.0, "cosine")
    assert train.padding == "counted"


@pytest.mark.parametrize(("name", "epochs", "batch"), [("ssc-dcls", 60, 128), ("gsc-dcls", 100, 128)])
def test_speech_command_recipes_have_the_hyper_parameters_of_the_paper(name: str, epochs: int, batch: int) -> None:
    recipe = load_recipe(name)
    assert (recipe.model.hidden, recipe.model.dropout) == ([512, 512, 512], 0.25)
    assert (recipe.train.epochs, recipe.train.batch_size) == (epochs, batch)
    assert recipe.model.neuron.beta(0.01) == pytest.approx(1 - 1 / 1.5)
    assert recipe.model.connection.kernel_steps(0.01) == 31
    assert recipe.model.connection.first_sigma(0.01) == 15


def test_published_rows_name_source_and_protocol() -> None:
    for name in NAMES:
        for row in load_recipe(name).published:
            assert row.source
            assert row.protocol
    assert load_recipe("ssc-dcls:3L-2KC").published_row().accuracy == 0.8069


def test_one_change_gives_the_same_network_without_delays() -> None:
    recipe = load_recipe("shd-dcls", ["model.connection.kind=linear"])
    assert recipe.model.readout_connection().kind == "linear"
    assert recipe.model.tail(0.01) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=3", r"unknown key 'train.epoch'; did you mean 'epochs'"),
        ("model.neuron.tau_men=0.1", r"did you mean 'tau_mem'"),
        ("model.neuron.surrogate.slope=3.0", r"ATan has no parameter 'slope'"),
        ("quite_unknown=1", r"known here: name, summary"),
        ("train.epochs=many", r"train.epochs: expected a valid integer, got 'many'"),
        ("train.epochs=2.5", r"train.epochs: expected a valid integer"),
        ("train.epochs=0", r"greater than or equal to 1, got 0"),
        ("model.dropout=1.0", r"less than 1"),
        ("model.dropout=nan", r"finite"),
        ("model.hidden=[0]", r"positive layer sizes"),
        ("model.hidden=[]", r"expected hidden layers .* or a table \[model.conv\]"),
        ("model.neuron.kind=lff", r"'lif', 'cubalif'"),
        ("model.neuron.tau_syn=0.01", r"'lif' has no 'tau_syn'"),
        ("model.recurrent_delay=0.02", r"needs recurrent = true"),
        ("train.weights.momentum=0.9", r"has no momentum"),
        ("train.epochs", r"expected key=value"),
        ("train.epochs.more=1", r"'epochs' is a value, not a table"),
    ],
)
def test_bad_change_is_one_sentence(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe("shd-dcls", [change])
    assert "\n" not in str(caught.value)


def test_unknown_names_point_to_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'shd-dcls'"):
        load_recipe("shd-dlcs")
    with pytest.raises(InputError, match="did you mean '3L-2KC'"):
        load_recipe("ssc-dcls:3L-2K")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "name = ", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "expected a table"),
        ("a.toml", "\udcff", "UTF-8"),
        ("a.toml", "#" * (1 << 20) + "\n", "larger than"),
        ("a.toml", "name = 'x'", "is missing"),
    ],
)
def test_bad_file_is_one_sentence(tmp_path: object, name: str, text: str, message: str) -> None:
    path = tmp_path / name  # type: ignore[operator]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SnnsimError, match=message):
        load_recipe(path)


def test_missing_file_is_named(tmp_path: object) -> None:
    with pytest.raises(SnnsimFileError, match="cannot be read"):
        load_recipe(str(tmp_path) + "/none.toml")


def test_own_file_and_none_value(tmp_path: object) -> None:
    path = tmp_path / "mine.toml"  # type: ignore[operator]
    path.write_bytes(resources.files("snnsim.recipes").joinpath("shd-adlif.toml").read_bytes())
    assert load_recipe(path).train.clip_norm == 1.5
    assert load_recipe(path, ["train.clip_norm=none"]).train.clip_norm is None


def test_changes_leave_the_input_alone() -> None:
    data = {"a": {"b": [1]}}
    assert apply_changes(data, ["a.b=[2, 3]", "a.c=true", "d.e=x y"]) == {
        "a": {"b": [2, 3], "c": True},
        "d": {"e": "x y"},
    }
    assert data == {"a": {"b": [1]}}


def test_every_shipped_file_is_plain_toml() -> None:
    for name in NAMES:
        text = resources.files("snnsim.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        assert tomllib.loads(text)["name"] == name
