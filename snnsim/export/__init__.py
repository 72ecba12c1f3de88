"""Export: one module a target, each with a list of what changed on the way and a proof by another program.

>>> sorted(TARGETS)
['c99', 'lava', 'nir', 'sana-fe', 'sonata', 'xylo']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from snnsim.errors import InputError

if TYPE_CHECKING:
    from snnsim.export.c99_proof import C99Proof
    from snnsim.export.chip_proof import ChipProof
    from snnsim.export.proof import Proof
    from snnsim.integer_network import IntegerNetwork
    from snnsim.network import Network

__all__ = ["TARGETS", "ExportReport", "Target", "export_network", "prove_export"]


@dataclass(frozen=True)
class ExportReport:
    """What an exporter did.

    Attributes:
        target: Name of the target.
        path: The file or folder written.
        changes: One sentence for everything that the file holds differently from the network, or that a
            reader of the file must know.
        latency: Steps by which each population's spikes come earlier in the file than in the network; negative if
            they come later.
    """

    target: str
    path: Path
    changes: tuple[str, ...]
    latency: dict[str, int]


@dataclass(frozen=True)
class Target:
    """One export target.

    Attributes:
        name: Name on the command line.
        title: One line for people.
        suffix: Suffix of its files.
        module: Module that holds ``writer`` and ``judge``; imported when used.
        writer: Function ``(network, path, **options) -> ExportReport``.
        judge_module: Module that holds ``judge``.
        judge: Function ``(path) -> judge`` that loads the file with an independent program
            (see :mod:`snnsim.export.proof`).
        prover: For a target in integers: function ``(network, path, **settings) -> proof`` that runs what was written
            and compares it with the integer reference, as ``module:function``; else empty.
        folder: Whether it writes a folder.
        profile: Limits profile that a network is checked against, empty where the target has no limits.
    """

    name: str
    title: str
    suffix: str
    module: str
    writer: str
    judge_module: str
    judge: str
    prover: str = ""
    folder: bool = False
    profile: str = ""

    def write(self, network: Network | IntegerNetwork, path: str | Path, **options: Any) -> ExportReport:
        """Write ``network`` to ``path`` in this target's format.

        Raises:
            InputError: The target holds float networks and got one in integers, or cannot hold the network.
        """
        if not self.prover and hasattr(network, "law"):
            raise InputError(
                f"{self.name}: expected a float network, got one in integers; export the network it is from"
            )
        function: Callable[..., ExportReport] = getattr(import_module(self.module), self.writer)
        return function(network, path, **options)

    def load_judge(self, path: str | Path) -> Any:
        """Load the written file with the target's independent loader."""
        return getattr(import_module(self.judge_module), self.judge)(path)


TARGETS: dict[str, Target] = {
    "nir": Target(
        name="nir",
        title="NIR exchange file (HDF5), read by SpikingJelly, snnTorch, Norse, Sinabs, Lava-DL and others",
        suffix=".nir",
        module="snnsim.export.nir",
        writer="write_nir",
        judge_module="snnsim.export.nir_judge",
        judge="NirJudge",
    ),
    "c99": Target(
        name="c99",
        title="C99 source and memory images for $readmemh, in integers, for small processors and FPGA",
        suffix=".c99",
        module="snnsim.export.c99",
        writer="write_c99",
        judge_module="snnsim.export.c99_judge",
        judge="C99Judge",
        prover="snnsim.export.c99_proof:prove_c99",
        folder=True,
        profile="fixed8",
    ),
    "sonata": Target(
        name="sonata",
        title="SONATA folder (HDF5, CSV, JSON) with a delay for every synapse, run by NEST",
        suffix=".sonata",
        module="snnsim.export.sonata",
        writer="write_sonata",
        judge_module="snnsim.export.sonata_judge",
        judge="SonataJudge",
        folder=True,
    ),
    "lava": Target(
        name="lava",
        title="Lava .net file (HDF5) for Loihi 2, in integers, one delay a synapse",
        suffix=".net",
        module="snnsim.export.lava",
        writer="write_lava",
        judge_module="snnsim.export.chip_judges",
        judge="LavaJudge",
        prover="snnsim.export.chip_proof:prove_lava",
        profile="loihi2",
    ),
    "sana-fe": Target(
        name="sana-fe",
        title="SANA-FE network and mapping (YAML) on its Loihi architecture, for energy and latency",
        suffix=".sana-fe.yaml",
        module="snnsim.export.sana_fe",
        writer="write_sana_fe",
        judge_module="snnsim.export.chip_judges",
        judge="SanaFeJudge",
        prover="snnsim.export.chip_proof:prove_sana_fe",
        profile="loihi2",
    ),
    "xylo": Target(
        name="xylo",
        title="specification of Xylo Audio 2 (npz), in integers, without delays",
        suffix=".xylo.npz",
        module="snnsim.export.xylo",
        writer="write_xylo",
        judge_module="snnsim.export.chip_judges",
        judge="XyloJudge",
        prover="snnsim.export.chip_proof:prove_xylo",
        profile="xylo-audio2",
    ),
}
"""Every export target by name."""


def export_network(network: Network | IntegerNetwork, target: str, path: str | Path, **options: Any) -> ExportReport:
    """Write ``network`` for ``target``.

    Args:
        network: A frozen network; for a target in integers also an integer network of its law.
        target: A key of :data:`TARGETS`.
        path: File or folder to write.
        options: Options of the target's writer.

    Raises:
        InputError: Unknown target, or the target cannot hold the network.
    """
    if target not in TARGETS:
        raise InputError(f"target: expected one of {', '.join(sorted(TARGETS))}, got {target!r}")
    return TARGETS[target].write(network, path, **options)


def prove_export(
    network: Network | IntegerNetwork,
    target: str,
    path: str | Path,
    *,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Proof | C99Proof | ChipProof:
    """Run a written file with the target's independent loader and compare every spike with the clock engine.

    The planted errors go the whole way: each changed network is exported again, into a temporary folder, and the
    loader runs that file against the spikes of the true network. A target in integers is compared with the integer
    reference of its law. A NIR file written for one program (option ``reader``) is run by that program's own importer;
    the reference is the network that this program makes of the file (:func:`snnsim.export.nir_read.read_nir`), and the
    planted errors are in it, since such a file holds no delays.

    Args:
        network: The network that was written.
        target: A key of :data:`TARGETS`.
        path: The file.
        options: The options it was written with.
        settings: Passed to :func:`snnsim.export.proof.prove` (events, n_samples, seed, ...).

    Raises:
        InputError: Unknown target, or the loader cannot run the file.
        MissingLibraryError: The loader is not installed.
    """
    from snnsim.export.proof import prove

    if target not in TARGETS:
        raise InputError(f"target: expected one of {', '.join(sorted(TARGETS))}, got {target!r}")
    chosen = TARGETS[target]
    if chosen.prover:
        module, _, name = chosen.prover.partition(":")
        if target != "c99":
            settings["options"] = options
        proof: C99Proof | ChipProof = getattr(import_module(module), name)(network, path, **settings)
        return proof
    from snnsim.network import Network

    if not isinstance(network, Network):
        raise InputError(f"{target}: expected a float network, got {type(network).__name__}")
    reader = (options or {}).get("reader")
    if target == "nir" and reader is not None:
        from snnsim.export.nir_peers import PeerJudge
        from snnsim.export.nir_read import read_nir

        program: Any = PeerJudge(path, reader)
        found = prove(read_nir(path, reader=reader), program, **settings)
        remark = f"The reference is the network that {reader} makes of the file, with all changes listed at its export."
        return replace(found, remarks=(*found.remarks, remark))
    with TemporaryDirectory(prefix="snnsim-proof-") as folder:
        file = Path(folder) / f"planted{chosen.suffix}"

        def replant(changed: Network) -> Any:
            chosen.write(changed, file, **(options or {}))
            return chosen.load_judge(file)

        return prove(network, chosen.load_judge(path), replant=replant, **settings)
