"""A finished or stopped run, opened again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snnsim.errors import SnnsimFileError
from snnsim.nn.model import build_model
from snnsim.nn.trained import TrainedModel
from snnsim.recipes import Recipe
from snnsim.training.checkpoint import load_tensors, newest_checkpoint
from snnsim.training.moved import Moved, what_moved
from snnsim.training.run_folder import RunFolder

if TYPE_CHECKING:
    from snnsim.network import Network

__all__ = ["Run", "load_run"]

Which = Literal["best", "last"]
Weights = Literal["best", "last", "initial"]


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        folder: Its files.
        recipe: The recipe as it ran.
        manifest: Seed, versions, data, sizes and looks at the test set.
    """

    folder: RunFolder
    recipe: Recipe
    manifest: dict[str, Any]

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def pool(self) -> int:
        """Neighbouring channels summed into one input."""
        return int(self.manifest["pool"])

    @property
    def n_classes(self) -> int:
        """Classes of the training data."""
        return int(self.manifest["n_classes"])

    @property
    def default(self) -> Which:
        """``best`` if a best validation epoch is stored, else ``last``."""
        return "best" if (self.path / "best.safetensors").is_file() else "last"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Metrics of every epoch."""
        return self.folder.metrics()

    @property
    def result(self) -> dict[str, Any] | None:
        """The labelled accuracies, or None if the run is not finished."""
        return self.folder.result()

    def model(self, which: Weights | None = None) -> TrainedModel:
        """Rebuild the trained model, in evaluation mode.

        Args:
            which: ``best``, ``last`` or ``initial`` (before the first update); the last of a stopped run is its newest
                checkpoint.

        Raises:
            SnnsimFileError: Those weights are not there or damaged.
        """
        which = which or self.default
        model = build_model(
            self.folder.model_spec(self.recipe),
            int(self.manifest["n_inputs"]),
            self.n_classes,
            self.recipe.data.dt,
            int(self.manifest["seed"]),
        )
        path = self.path / f"{which}.safetensors"
        if path.is_file():
            tensors = load_tensors(path)
        else:
            checkpoint = newest_checkpoint(self.folder.checkpoints) if which == "last" else None
            if checkpoint is None:
                hints = {"best": "the run had no validation set", "initial": "was it removed?"}
                hint = hints.get(which, "the run has no checkpoint yet")
                raise SnnsimFileError(path, "", f"is not there; {hint}")
            tensors = {name[6:]: value for name, value in checkpoint.tensors.items() if name.startswith("model/")}
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise SnnsimFileError(path, "", f"does not fit the recipe beside it ({first[0].strip()})") from error
        return model.eval()

    def moved(self, which: Which | None = None) -> list[Moved]:
        """Return what training moved, from the initial weights to ``best`` or ``last``."""
        return what_moved(self.model("initial"), self.model(which))

    def network(self, which: Which | None = None) -> Network:
        """Return the frozen network: the stored one, or the model frozen now (a stopped run, a convolutional model)."""
        which = which or self.default
        path = self.path / f"{which}.snn.h5"
        if path.is_file():
            from snnsim.network import Network

            return Network.load(path)
        from snnsim.nn.freeze import freeze

        return freeze(self.model(which), round_delays=self.recipe.train.learning != "eventprop")


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        SnnsimFileError: No run is there, or its files are damaged.
    """
    folder = RunFolder(path)
    folder.check()
    return Run(folder, folder.recipe(), folder.manifest())
