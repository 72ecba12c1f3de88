"""NIR files by and for SpikingJelly, snnTorch and Norse: no spike differs from their own modules."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snnsim.cli.main import run as run_command
from snnsim.errors import InputError
from snnsim.export import nir_table, prove_export
from snnsim.export.nir import build_nir, write_nir
from snnsim.export.nir_conventions import READERS, WRITERS
from snnsim.export.nir_read import read_nir
from snnsim.export.proof import MIN_NEURON_STEPS, MIN_SPIKES, Proof, prove
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import IF, LI, LIF, CubaLIF, Neuron

nir = pytest.importorskip("nir")

DT = 1e-3
SIZES = (24, 48, 36)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def enough(proof: Proof) -> None:
    assert proof.equal, proof.sentences()
    assert proof.compared >= MIN_NEURON_STEPS
    assert min(proof.spikes.values()) >= MIN_SPIKES
    assert len(proof.mutations) == 3
    assert all(item.caught for item in proof.mutations)


# -- files that other programs wrote -------------------------------------------------------------------


class Native:
    """A model as its own program runs it, step by step."""

    latency: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, name: str, step: Callable[[Any, Any], tuple[list[Any], Any]], labels: list[str]) -> None:
        self.name, self.step, self.labels = name, step, labels

    @torch.no_grad()
    def run(self, inputs: Any) -> dict[str, Any]:
        state, found = None, []
        for x in torch.from_numpy(inputs):
            spikes, state = self.step(x, state)
            found.append([item.double().numpy() for item in spikes])
        return {label: np.stack([step[i] for step in found]) for i, label in enumerate(self.labels)}


def linear(n_in: int, n_out: int, scale: float = 1.0, bias: bool = True) -> nn.Linear:
    made = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        made.weight.normal_(0.15 * scale, 0.4 * scale)
        if bias:
            made.bias.normal_(0.02, 0.05)
    return made.double()


def spikingjelly_model(kind: str, path: Path) -> Native:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    cells: dict[str, Any] = {
        "lif": lambda: neuron.LIFNode(tau=2.7, decay_input=False, v_threshold=1.1),
        "decaying input": lambda: neuron.LIFNode(tau=1.7, v_threshold=0.4),
        "reset value": lambda: neuron.LIFNode(tau=2.7, decay_input=False, v_reset=-0.2),
        "plif": lambda: neuron.ParametricLIFNode(init_tau=1.9, decay_input=False),
        "if": lambda: neuron.IFNode(v_threshold=2.0),
        "if reset value": lambda: neuron.IFNode(v_threshold=2.0, v_reset=-0.3),
        "current": lambda: neuron.CUBALIFNode(c_decay=0.4, v_decay=0.7, v_threshold=2.5),
    }
    current = kind == "current"
    bias = not current
    first = linear(*SIZES[:2], bias=bias)
    model = nn.Sequential(first, cells[kind](), linear(*SIZES[1:], bias=bias), cells[kind]()).double()
    export_to_nir(model, torch.zeros(1, SIZES[0], dtype=torch.float64), path, dt=DT)

    def step(x: Any, state: Any) -> tuple[list[Any], Any]:
        if state is None:
            functional.reset_net(model)
        a = model[1](model[0](x))
        return [a, model[3](model[2](a))], 0

    return Native("SpikingJelly", step, ["1", "3"])


def snntorch_model(kind: str, path: Path) -> Native:
    snn = pytest.importorskip("snntorch")
    from snntorch.export_nir import export_to_nir

    def cell(size: int, beta: float) -> Any:
        options: dict[str, Any] = {"threshold": torch.ones(size).double() * 1.1, "reset_mechanism": "subtract"}
        if kind == "zero":
            options |= {"reset_mechanism": "zero"}
        betas = torch.linspace(0.5, beta, size).double()
        if kind == "current":
            return snn.Synaptic(alpha=torch.full((size,), 0.6).double(), beta=betas, **options)
        return snn.Leaky(beta=betas, **options)

    bias, scale = kind != "current", 0.6 if kind == "current" else 1.0
    parts = [linear(*SIZES[:2], scale, bias), cell(SIZES[1], 0.9), linear(*SIZES[1:], scale, bias), cell(SIZES[2], 0.8)]
    for part in parts[1::2]:
        part.init_hidden = True
    model = nn.Sequential(*parts)
    dtype = torch.float32 if kind == "float32" else torch.float64
    model = model.to(dtype)
    model[2].register_forward_pre_hook(lambda module, arguments: (arguments[0].to(module.weight.dtype),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        nir.write(path, export_to_nir(model, torch.zeros(1, SIZES[0], dtype=dtype), ignore_dims=[0]))
    model = model.double()

    def step(x: Any, state: Any) -> tuple[list[Any], Any]:
        if state is None:
            for part in parts[1::2]:
                for variable in ("mem", "syn"):
                    if hasattr(part, variable):
                        setattr(part, variable, torch.zeros(0).double())
        a = model[1](model[0](x))
        return [a, model[3](model[2](a))], 0

    return Native("snnTorch", step, ["1", "3"])


def norse_model(kind: str, path: Path) -> Native:
    norse = pytest.importorskip("norse.torch")
    from norse.torch.utils.export_nir import to_nir

    def cell(size: int, tau: float) -> Any:
        def full(value: float) -> Any:
            return torch.full((size,), value).double()

        inverse = torch.linspace(1 / tau, 2 / tau, size).double()
        if kind == "if":
            return norse.IAFCell(norse.IAFParameters(v_th=full(3.0)), dt=DT)
        if kind == "current":
            parameters = norse.LIFParameters(
                tau_mem_inv=inverse, tau_syn_inv=full(400.0), v_leak=full(0.0), v_th=full(0.7)
            )
            return norse.LIFCell(parameters, dt=DT)
        return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=inverse, v_leak=full(0.05), v_th=full(0.4)), dt=DT)

    bias = kind != "current"
    parts = [linear(*SIZES[:2], bias=bias), cell(SIZES[1], 4e-3), linear(*SIZES[1:], bias=bias), cell(SIZES[2], 6e-3)]
    model = norse.SequentialState(*parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        nir.write(path, to_nir(model, torch.zeros(SIZES[0]).double(), dt=DT))

    def step(x: Any, state: Any) -> tuple[list[Any], Any]:
        first, second = state or (None, None)
        a, first = parts[1](parts[0](x), first)
        b, second = parts[3](parts[2](a), second)
        return [a, b], (first, second)

    return Native("Norse", step, ["1", "3"])


WRITTEN: list[tuple[str, str, dict[str, Any]]] = [
    ("spikingjelly", "reset value", {}),
    ("spikingjelly", "current", {}),
    ("snntorch", "float32", {}),
    ("snntorch", "current", {}),
    ("norse", "box", {}),
    ("norse", "current", {}),
]
MORE_WRITTEN: list[tuple[str, str, dict[str, Any]]] = [
    *(("spikingjelly", kind, {}) for kind in ("lif", "decaying input", "plif", "if", "if reset value")),
    ("snntorch", "subtract", {}),
    ("snntorch", "zero", {"reset": "zero"}),
    ("norse", "if", {}),
]
MODELS = {"spikingjelly": spikingjelly_model, "snntorch": snntorch_model, "norse": norse_model}


@pytest.mark.parametrize(
    ("program", "kind", "options"), [*WRITTEN, *(pytest.param(*item, marks=pytest.mark.slow) for item in MORE_WRITTEN)]
)
def test_files_of_other_programs_have_the_spikes_of_their_models(
    program: str, kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    judge = MODELS[program](kind, tmp_path / "f.nir")
    dt = None if program == "snntorch" else DT
    network = read_nir(tmp_path / "f.nir", dt, convention=program, **options)
    judge.labels = [item.name for item in network.populations]
    judge.latency = dict(network.notes["latency_steps"])
    enough(prove(network, judge, n_samples=220, n_steps=60))


# -- files written for other programs ------------------------------------------------------------------


def network(kind: str) -> Network:
    rng = np.random.default_rng(2)
    first, second = SIZES[1:]
    scale, starts = 1.0, (0, 0)
    records: list[Neuron]
    if kind == "if":
        records = [IF.from_step(dt=DT, drive_step=rng.uniform(0, 0.1, n), v_threshold=3.0) for n in (first, second)]
    elif kind == "current":
        scale, starts = 3.0, (0, 1)
        records = [
            CubaLIF.from_step(dt=DT, beta=0.8, alpha=0.6, drive_syn_step=rng.normal(0.02, 0.05, n))
            for n in (first, second)
        ]
    else:
        betas = [rng.uniform(0.5, 0.9, n) if kind == "uneven" else 0.8 for n in (first, second)]
        records = [
            LIF.from_step(dt=DT, beta=beta, drive_step=rng.normal(0.02, 0.05, n), v_threshold=1.1)
            for n, beta in zip((first, second), betas, strict=True)
        ]
    projections = [
        Projection("in", "first", rng.normal(0.1 * scale, 0.4 * scale, SIZES[1::-1])),
        Projection("first", "second", rng.normal(0.1 * scale, 0.4 * scale, SIZES[:0:-1])),
    ]
    if kind == "loop":
        projections.append(Projection("first", "first", rng.normal(0, 0.3, (first, first)), DT))
    populations = tuple(
        Population(name, size, record, start_step=start)
        for name, size, record, start in zip(("first", "second"), SIZES[1:], records, starts, strict=True)
    )
    return Network(populations, tuple(projections), (Input("in", SIZES[0]),), readout=None, dt=DT)


RUN = [("spikingjelly", "loop"), ("snntorch", "uneven"), ("norse", "current"), ("norse", "loop")]
MORE_RUN = [
    *(("spikingjelly", kind) for kind in ("lif", "if", "current")),
    *(("snntorch", kind) for kind in ("lif", "current")),
    *(("norse", kind) for kind in ("lif", "uneven", "if")),
]


@pytest.mark.parametrize(
    ("program", "kind"), [*RUN, *(pytest.param(*item, marks=pytest.mark.slow) for item in MORE_RUN)]
)
def test_files_for_other_programs_have_our_spikes_there(program: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip(program)
    write_nir(network(kind), tmp_path / "f.nir", reader=program)
    options = {"reader": program}
    enough(prove_export(network(kind), "nir", tmp_path / "f.nir", options=options, n_samples=220, n_steps=60))


def test_the_network_that_float64_programs_run_is_the_one_that_was_written(tmp_path: Path) -> None:
    written = network("loop")
    write_nir(written, tmp_path / "f.nir", reader="spikingjelly")
    back = read_nir(tmp_path / "f.nir")
    assert back.dt == DT
    weights = [
        {(item.source, item.target): np.asarray(item.weight) for item in made.projections} for made in (written, back)
    ]
    for ends, weight in weights[0].items():
        assert np.array_equal(weight, weights[1][ends])
    write_nir(written.replace(projections=written.projections[:2]), tmp_path / "f.nir", reader="snntorch")
    back = read_nir(tmp_path / "f.nir")
    assert back.dt == DT
    assert back.population("first").neuron.step(SIZES[1], DT).strict
    np.testing.assert_allclose(np.asarray(back.projections[0].weight), np.asarray(written.projections[0].weight), 1e-7)


def changed(kind: str = "lif", **values: Any) -> Network:
    made = network(kind)
    first = made.populations[0]
    new = Population("first", first.size, first.neuron.replace(**values))
    return made.replace(populations=(new, *made.populations[1:]))


def with_readout() -> Network:
    made = network("lif")
    readout = Population("readout", 3, LI.from_step(dt=DT, beta=0.9))
    last = Projection("second", "readout", np.ones((3, SIZES[2])))
    return made.replace(populations=(*made.populations, readout), projections=(*made.projections, last))


def delayed() -> Network:
    made = network("lif")
    late = Projection("in", "first", made.projections[0].weight, 3 * DT)
    return made.replace(projections=(late, *made.projections[1:]))


@pytest.mark.parametrize(
    ("program", "made", "message"),
    [
        ("spikingjelly", network("uneven"), "'first': SpikingJelly's importer needs one beta a population"),
        ("spikingjelly", changed(v_threshold=np.linspace(1, 2, SIZES[1])), "needs one v_threshold"),
        ("snntorch", changed(v_threshold=np.linspace(1, 2, SIZES[1])), "needs one v_threshold"),
        ("snntorch", network("if"), "makes leaky neurons of IF"),
        ("snntorch", network("loop"), "'first->first': snnTorch 1.0.0 runs recurrent connections otherwise"),
        ("norse", changed(reset="subtract"), "'first': Norse's importer resets to zero"),
        ("norse", changed(v_reset=-0.5), "starts and resets at the same value"),
        ("spikingjelly", delayed(), r"'in->first': SpikingJelly has no delays, this one needs up to 3"),
        ("norse", with_readout(), "'readout': Norse's importer has no LI; pass integrators"),
        ("lava", network("lif"), "files can be written for norse, snntorch, spikingjelly, got 'lava'"),
    ],
)
def test_what_a_program_cannot_hold_is_refused(program: str, made: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_nir(made, reader=program)


def test_integrators_are_left_out_when_asked() -> None:
    graph, changes, _ = build_nir(with_readout(), reader="norse", integrators="drop-with-report")
    assert "readout" not in graph.nodes
    assert any("Left out, with the synapses into them: readout" in line for line in changes)
    with pytest.raises(InputError, match="leaving them out needs a reader"):
        build_nir(with_readout(), integrators="drop-with-report")


def test_what_readers_do_refuse_is_refused_by_them_too(tmp_path: Path) -> None:
    """The refusals above are not ours to invent: the importers do refuse, or run something else."""
    from snnsim.export.nir_peers import PeerJudge

    write_nir(network("uneven"), tmp_path / "f.nir")
    with pytest.raises(InputError, match=r"SpikingJelly [\d.]+ refuses it: ValueError"):
        PeerJudge(tmp_path / "f.nir", "spikingjelly")
    made = network("lif")
    late = Projection("first", "second", made.projections[1].weight, 3 * DT)
    write_nir(made.replace(projections=(made.projections[0], late)), tmp_path / "f.nir")
    for program in ("spikingjelly", "snntorch"):
        with pytest.raises(InputError, match="refuses it"):
            PeerJudge(tmp_path / "f.nir", program)
    # Norse stops at the delay without a word or fails, as the order of a set of names has it
    with pytest.raises(InputError, match=r"ran 'second' in 0 of 3 steps|cannot run it|refuses it"):
        PeerJudge(tmp_path / "f.nir", "norse").run(np.ones((3, 2, SIZES[0])))
    write_nir(network("loop"), tmp_path / "f.nir")
    plain = read_nir(tmp_path / "f.nir")
    assert not prove(plain, PeerJudge(tmp_path / "f.nir", "snntorch"), n_samples=2, n_steps=30, mutate=False).equal


def test_bad_options_are_refused(tmp_path: Path) -> None:
    write_nir(network("lif"), tmp_path / "f.nir")
    for options, message in (
        ({"convention": "nest"}, "convention: expected one of norse, sinabs, snntorch, spikingjelly, spyx, got 'nest'"),
        ({"reader": "nest"}, "reader: expected one of"),
        ({"reader": "norse", "convention": "norse"}, "pass one"),
        ({"reset": "never"}, "reset: expected one of zero, subtract, late-subtract"),
        ({"reader": "norse", "discretisation": "euler"}, "the convention of a program includes it"),
    ):
        with pytest.raises(InputError, match=message):
            read_nir(tmp_path / "f.nir", **options)
    assert set(WRITERS) == set(READERS)


# -- command and table ---------------------------------------------------------------------------------


def test_command_writes_for_a_program_and_proves_it_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("norse")
    source, target = tmp_path / "net.snn.h5", tmp_path / "net.nir"
    with_readout().save(source)
    words = ["export", str(source), "--target", "nir", "--out", str(target), "--json", "--for", "norse"]
    assert run_command(words) == 2
    assert "Norse's importer has no LI" in capsys.readouterr().err
    assert not target.exists()
    assert run_command([*words, "--drop-integrators", "--check", "--samples", "220"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["mismatches"] == 0
    assert printed["proof_holds"]
    stored = json.loads((tmp_path / "net.nir.proof.json").read_text())
    assert stored["remarks"][-1].startswith("The reference is the network that norse makes of the file")
    assert any("Written for Norse 1.1.0" in line for line in printed["changes"])
    assert run_command(["export", str(source), "--drop-integrators"]) == 2
    assert "--drop-integrators: only files for one program" in capsys.readouterr().err


def test_the_table_is_made_by_running_and_names_what_is_missing() -> None:
    pytest.importorskip("norse")
    table = nir_table.compatibility(["norse"], ["delay"])
    assert table["plain"]["delay"]["norse"].outcome in ("refused", "differs")
    assert "has no delays" in table["written for"]["delay"]["norse"].text
    others = nir_table.other_programs({"spyx": "/nonexistent/python"}, ["LIF"])
    assert others["sinabs"]["LIF"].text == "not run: no environment given"
    assert "cannot run it" in others["spyx"]["LIF"].text


def test_the_page_has_every_network_and_every_program() -> None:
    text = (Path(__file__).parent.parent / "docs" / "nir-compatibility.md").read_text(encoding="utf-8")
    for label in nir_table.FEATURES.values():
        assert text.count(f"\n| {label} |") == 2
    for convention in (*READERS.values(), *WRITERS.values()):
        assert f"| {convention.program} {convention.version} |" in text
    for name in ("nirtorch", "Sinabs", "Spyx", "Rockpool"):
        assert name in text
