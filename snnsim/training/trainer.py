"""Model, optimisers and data of one training run, one step of it, and its state."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning import EventProp, Loss, Outcome, Ridge, Stream, TensorStream, gradient_cosine, make_rule
from snnsim.limits import load_profile
from snnsim.nn.context import Context
from snnsim.nn.formulation import choose_formulations, set_formulations
from snnsim.nn.initialise import LayerRate
from snnsim.nn.masks import densities, mask_gradients, revealed
from snnsim.nn.model import SpikingModel, build_model
from snnsim.nn.precision import products
from snnsim.nn.trained import TrainedModel
from snnsim.recipes import Recipe
from snnsim.training.checkpoint import (
    restore_state,
    training_state,
)
from snnsim.training.cuda_graph import StepGraph
from snnsim.training.distributed import World
from snnsim.training.evaluation import evaluate_model, operations_a_sample
from snnsim.training.event_stream import EventStream
from snnsim.training.health import FIRST_STEPS, diagnose
from snnsim.training.initial import scale_to_rate
from snnsim.training.pool import StdpFacts, check_activity, learn_by_stdp
from snnsim.training.prepare import Prepared, input_density, stream
from snnsim.training.pruning import Pruner
from snnsim.training.quantised import TrainingGrid, check_model, check_quantize
from snnsim.training.schedules import build_optimisers, clip_gradients, first_fixed_epoch, sigma_at
from snnsim.training.upload import CPU, upload

__all__ = ["Totals", "Trainer", "load_start"]


@dataclass
class Totals:
    """Running sums of one epoch; part of a checkpoint that is written within an epoch."""

    loss: float = 0.0
    correct: float = 0.0
    samples: float = 0.0
    neuron_steps: float = 0.0
    inputs: float = 0.0
    rates: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gradient_cosine: dict[str, float] | None = None


STREAMED = ("sltt", "sltt-k", "ottt", "rtrl", "e-prop")
"""Rules that ask for one stretch after the other: their batches are never one tensor of all steps."""


class Trainer:
    """Model, optimisers and data of one run, and one step of it.

    Args:
        recipe: Recipe.
        data: Prepared data.
        seed: Seed of weights, order, augmentation and dropout.
        world: This process among those that train together.
        start: Weights to start from, a state dict of the same model; None draws them.
        device: Where the model is trained, from :func:`snnsim.nn.cuda.use_device`; weights are drawn on the CPU, the
            same for every device.

    Raises:
        InputError: The weights to start from are those of another model, the recipe does not fit the data, or what it
            asks for runs on the CPU only.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Prepared,
        seed: int,
        world: World | None = None,
        start: Mapping[str, Tensor] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.data = data
        self.seed = seed
        self.world = world or World()
        self.model: TrainedModel = build_model(recipe.model, data.n_inputs, data.n_classes, recipe.data.dt, seed)
        self.starts_from_run = start is not None
        if start is not None:
            load_start(self.model, start)
        if recipe.quantize is not None:
            check_quantize(recipe, self.starts_from_run)
        self.model.to(device)
        self.grid: TrainingGrid | None = None
        self.rates: list[float] = []
        self.density = input_density(data, recipe, self.model.tail_steps)
        self.formulations = self.choose_formulations()
        streamed = recipe.train.learning in STREAMED
        self.batches = stream(
            data.train, recipe, data.pool, self.model.tail_steps, seed=seed, training=True, streamed=streamed
        )
        self.world.check_batches(len(data.train), recipe.train.batch_size)
        self.optimisers = build_optimisers(self.model, recipe.train, len(self.batches))
        self.rule = make_rule(recipe.train)
        self.pruner: Pruner | None = None
        if recipe.prune is not None:
            self.pruner = Pruner(recipe.prune, self.model, recipe.train.epochs * len(self.batches))
        self.update_within: Callable[[], None] | None = None
        if recipe.train.rule.update == "step":
            if self.world.size > 1:
                raise InputError(
                    f"train.rule.update 'step' changes weights within a sequence: expected one process, got "
                    f"{self.world.size}; use update 'sequence'"
                )
            self.update_within = self.update_and_clear
        if recipe.train.rule.wake and self.world.size > 1:
            raise InputError(
                f"train.rule.wake looks for neurons that were silent in all samples: expected one process, got "
                f"{self.world.size}; use wake = 0"
            )
        if recipe.train.learning == "ridge" and self.world.size > 1:
            raise InputError(
                f"train.learning 'ridge' sums over all samples: expected one process, got {self.world.size}"
            )
        self.sizes = self.model.hidden_sizes()
        self.step = 0
        self.epoch = 0
        self.batch = 0
        self.totals = Totals()
        self.best: dict[str, Any] | None = None
        self.best_test: dict[str, Any] | None = None
        self.named: list[int] = []
        self.metrics_length = 0
        self.initial_rates: list[LayerRate] = []
        self.stdp: StdpFacts | None = None
        self.graph: StepGraph | None = None

    def choose_formulations(self) -> dict[str, str]:
        """Set and return how the connections compute, by the data and the rates of the epoch before."""
        spec = self.recipe.train  # bfloat16 factors are those of dense products
        wish = "dense" if spec.precision == "bf16" else spec.formulation
        return choose_formulations(self.model, self.density, self.rates, wish)

    def longest(self) -> int:
        """Return the steps of the longest batch."""
        return self.batches.pad_to or int(self.batches.n_steps.max())

    def initialise(self) -> None:
        """Scale the hidden layers to the recipe's initial rate and let a pool learn by STDP, before the first update.

        Raises:
            InputError: A pool is silent or drives itself.
        """
        if self.step == 0 and self.recipe.model.initial_rate is not None and not self.starts_from_run:
            self.begin_epoch()
            batch = next(self.batches.epoch(0))
            self.initial_rates = scale_to_rate(self.model, batch, self.recipe, self.seed, self.world)
        if self.step == 0 and self.recipe.model.pool is not None:
            assert isinstance(self.model, SpikingModel)
            if self.recipe.train.stdp is not None and not self.starts_from_run:  # that run has learned by it
                self.stdp = learn_by_stdp(self.model, self.data.train, self.recipe, self.data.pool)
            first = self.batches.batch(self.batches.order(0)[: self.recipe.train.batch_size])
            check_activity(self.model, first, self.recipe, self.world)

    def check_rule(self, on_device: bool = False) -> None:
        """Let the rule learn from two samples on a copy of the model, so that what it refuses is refused at once.

        So is a model that the target of a table ``quantize`` cannot hold.

        Args:
            on_device: Whether a device has to do it, which may refuse what the CPU can: then every rule is tried, and
                an evaluation.

        Raises:
            InputError: The rule does not fit the model or the loss, or the model not the target.
        """
        if self.recipe.quantize is not None:
            assert isinstance(self.model, SpikingModel)
            check_model(self.model, self.recipe.quantize)
        if self.world.size > 1 or (self.recipe.train.learning == "bptt" and not on_device):
            return
        few = self.batches.batch(self.batches.order(0)[:2])
        twin = copy.deepcopy(self.model).train()
        update = None if self.update_within is None else twin.zero_grad
        stream, loss = self.task(few)
        with products(self.recipe.train.precision):
            make_rule(self.recipe.train).gradients(twin, stream, loss, update)
        if on_device:
            with torch.no_grad():
                twin.eval()(stream.chunk(0, stream.n_steps), None, stream.context)

    def begin_epoch(self) -> None:
        """Set the spread of the delay taps for this epoch, and fix the delays from the recipe's epoch on."""
        model, epochs = self.recipe.model, self.recipe.train.epochs
        spec = model.connection if model.connection.kind == "delayed" else model.readout_connection()
        self.model.set_sigma(sigma_at(self.epoch, spec, self.recipe.data.dt, epochs))
        if self.epoch >= first_fixed_epoch(spec, epochs):
            self.model.fix_delays()
        quantize = self.recipe.quantize
        if quantize is not None and self.grid is None and self.epoch >= quantize.first_epoch(epochs):
            self.grid = TrainingGrid.begin(self)
            self.best = self.best_test = None  # an epoch from before the grid is not the result
            self.formulations = self.choose_formulations()
        self.model.train()
        if self.grid is not None:
            self.grid.hold()
        if self.graph is not None:
            self.graph.forget()

    def on_grid(self) -> AbstractContextManager[None]:
        """Compute with the target's numbers if training has come to them."""
        return nullcontext() if self.grid is None else self.grid.applied()

    def prune(self) -> bool:
        """Do the round of pruning that is due at the beginning of this epoch; return whether there was one."""
        if self.pruner is not None and self.pruner.needs_initial and self.step == 0:
            self.pruner.initial = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.pruner is None or self.batch or not self.pruner.begin_epoch(self):
            return False
        if self.graph is not None:
            self.graph.forget()  # scores may have captured a step without these masks
        self.best = self.best_test = None  # an epoch from before the last round is not the result
        self.formulations = self.choose_formulations()
        return True

    def task(self, batch: Any) -> tuple[Stream, Loss]:
        """Return this process's part of a batch as a rule wants it."""
        spec, device = self.recipe.train, self.device
        part = self.world.part(len(batch))
        mixed = batch.other_labels is not None
        target = upload((batch.targets(self.data.n_classes) if mixed else batch.labels)[part], device)
        seen = upload(batch.mask[:, part], device) if spec.padding == "masked" else None
        context = Context(seen, upload(batch.sample_id[part], device), self.seed, self.epoch, self.batch)
        counts = batch.counts
        stream: Stream
        if isinstance(counts, np.ndarray):
            stream = TensorStream(upload(counts[:, part], device), context)
        else:
            stream = EventStream(counts, part, context, device)
        loss = Loss(
            *(target, spec.loss, spec.label_smoothing, spec.mse_share, spec.mse_target),
            rate=spec.rate,
            total_samples=len(batch),
        )
        return stream, loss

    def forward_backward(self, batch: Any) -> dict[str, Any]:
        """Compute the loss and the gradients (summed over processes) of one batch.

        Returns:
            Sums over the whole batch: loss, correct, samples, neuron_steps, inputs, and rates times steps.
        """
        part = self.world.part(len(batch))
        labels = upload(batch.labels[part], self.device)
        stream, loss = self.task(batch)
        with products(self.recipe.train.precision):
            if self.recipe.train.gradient_cosine and self.batch == 0:
                self.totals.gradient_cosine = gradient_cosine(self.rule, self.model, stream, loss)
            self.clear_gradients()
            outcome = self._gradients(stream, loss)
        self.world.sum_gradients(self.model)
        masked = self.recipe.train.padding == "masked"
        steps = float(np.count_nonzero(batch.mask[:, part]) if masked else stream.n_steps * stream.batch)
        # the only time that a step waits for the device: a loss that is not finite must stop the run before the update
        found = torch.cat(
            [
                outcome.losses.double().sum().view(1),
                (outcome.logits.argmax(dim=1) == labels).sum().double().view(1),
                outcome.rates * steps,
            ]
        ).tolist()
        sums = self.world.sum([*found[:2], float(labels.numel()), steps, float(batch.active(part)), *found[2:]])
        keys = ("loss", "correct", "samples", "neuron_steps", "inputs")
        return {**dict(zip(keys, sums[:5], strict=True)), "rates": sums[5:]}

    def _gradients(self, stream: Stream, loss: Loss) -> Outcome:
        """Let the rule find the gradients, or replay what it did for the last full batch."""
        whole = stream.batch == self.recipe.train.batch_size and not (self.pruner and self.pruner.grows_at(self.step))
        if self.graph is not None and whole and isinstance(stream, TensorStream):
            return self.graph.gradients(stream, loss)
        return self.rule.gradients(self.model, stream, loss, self.update_within)

    def clear_gradients(self) -> None:
        """Forget the gradients of what came before."""
        for group in self.optimisers:
            group.optimiser.zero_grad(set_to_none=True)

    def apply_gradients(self) -> None:
        """Change the parameters by their gradients and keep them in range."""
        mask_gradients(self.model)
        if self.recipe.train.clip_norm is not None:
            clip_gradients(self.model, self.recipe.train.clip_norm)
        for group in self.optimisers:
            group.optimiser.step()
        self.model.clamp_()
        if self.grid is not None:
            self.grid.after_update()
        if self.pruner is not None:
            self.pruner.after_update(self)

    def update_and_clear(self) -> None:
        """Learn from what a rule has found so far in a sequence."""
        self.apply_gradients()
        self.clear_gradients()

    def update(self) -> None:
        """Apply the gradients of a batch, or grow synapses by them, and advance the schedules that go by batch."""
        if self.pruner is not None and self.pruner.grows_at(self.step):
            self.pruner.regrow(self)
            self.clear_gradients()
            for group in self.optimisers:
                group.optimiser.step()  # without gradients nothing moves; schedules want a step before they advance
        else:
            self.apply_gradients()
        for group in self.optimisers:
            group.advance("batch")

    def train_batch(self, batch: Any) -> dict[str, Any]:
        """Do one optimiser step and add its sums to the epoch's totals.

        Raises:
            InputError: The loss is not finite.
        """
        grows = self.pruner is not None and self.pruner.grows_at(self.step)
        with revealed(self.model) if grows else nullcontext(), self.on_grid():
            sums = self.forward_backward(batch)
        if not math.isfinite(sums["loss"]):
            raise InputError(
                f"training: the loss is {sums['loss']} in epoch {self.epoch + 1}, batch {self.batch + 1}; "
                "try a lower train.weights.lr or train.clip_norm = 1.0"
            )
        self.update()
        self.step += 1
        self.batch += 1
        totals = self.totals
        for key in ("loss", "correct", "samples", "neuron_steps", "inputs"):
            setattr(totals, key, getattr(totals, key) + sums[key])
        old = totals.rates or [0.0] * len(sums["rates"])
        totals.rates = [a + b for a, b in zip(old, sums["rates"], strict=True)]
        if self.step <= FIRST_STEPS:
            self.warn([rate / max(1.0, sums["neuron_steps"]) for rate in sums["rates"]])
        return sums

    def warn(self, rates: list[float]) -> None:
        """Add warnings about silent or saturated layers that have not been named yet."""
        for index, sentence in diagnose(rates, self.sizes):
            if index not in self.named:
                self.named.append(index)
                self.totals.warnings.append(f"step {self.step}: {sentence}")

    def end_epoch(self) -> dict[str, Any]:
        """Evaluate on the held-out samples, advance schedules that go by epoch, and return the metrics."""
        totals = self.totals
        rates = [value / max(1.0, totals.neuron_steps) for value in totals.rates]
        self.warn(rates)
        if isinstance(self.rule, Ridge):
            self.solve(self.rule)
        spikes = [value * size for value, size in zip(totals.rates, self.sizes, strict=True)]
        operations = operations_a_sample(self.model, totals.inputs, spikes, int(totals.samples))
        layers = self.model.delay_layers()
        record: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "loss": totals.loss / totals.samples,
            "train_accuracy": totals.correct / totals.samples,
            "rates": rates,
            "mean_delay": self.model.mean_delay() if layers else None,
            "sigma": float(layers[0].sigma) if layers else None,
            "synaptic_operations": operations,
            "lr": {group.name: group.lr for group in self.optimisers},
            "valid_loss": None,
            "valid_accuracy": None,
            "warnings": totals.warnings,
            "gradient_cosine": totals.gradient_cosine,
        }
        if self.pruner is not None:
            record["density"] = densities(self.model)
        self.rates = rates
        if self.data.valid is not None:
            with self.on_grid():
                result = evaluate_model(self.model, self.data.valid, self.recipe, self.data.pool, world=self.world)
            record |= {
                "valid_loss": result.loss,
                "valid_accuracy": result.accuracy,
                "rates": list(result.rates),
                "synaptic_operations": result.synaptic_operations,
            }
        if isinstance(self.rule, EventProp):
            self.rule.end_epoch(self.model)
        for group in self.optimisers:
            group.advance("epoch")
        self.formulations = self.choose_formulations()
        self.epoch += 1
        self.batch = 0
        self.totals = Totals()
        return record

    def solve(self, rule: Ridge) -> None:
        """Put the closed form into the readout; what it makes of the training samples is known only now."""
        assert isinstance(self.model, SpikingModel)
        rule.solve(self.model)
        result = evaluate_model(self.model, self.data.train, self.recipe, self.data.pool)
        self.totals.loss = result.loss * result.n_samples
        self.totals.correct = result.accuracy * result.n_samples

    def improves(self, record: dict[str, Any]) -> bool:
        """Return whether this epoch is the best on the held-out samples so far (ties: the lower loss)."""
        if record["valid_accuracy"] is None:
            return False
        key = _selection_key(record, self.recipe.train.selection)
        if self.best is None or key > _selection_key(self.best, self.recipe.train.selection):
            self.best = {name: record[name] for name in ("epoch", "valid_accuracy", "valid_loss")}
            return True
        return False

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return arrays and values of a checkpoint."""
        tensors, optimisers = training_state(self.model, self.optimisers)
        return tensors, {
            "epoch": self.epoch,
            "batch": self.batch,
            "totals": asdict(self.totals),
            "best": self.best,
            "best_test": self.best_test,
            "named": self.named,
            "formulations": self.formulations,
            "rates": self.rates,
            "metrics_length": self.metrics_length,
            "rule": self.rule.state() if isinstance(self.rule, (EventProp, Ridge)) else None,
            "grid": None if self.grid is None else self.grid.state(),
            "optimisers": optimisers,
        }

    def restore(self, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        restore_state(self.model, self.optimisers, tensors, values["optimisers"])
        self.step = step
        self.epoch, self.batch = int(values["epoch"]), int(values["batch"])
        self.totals = Totals(**values["totals"])
        self.best, self.best_test, self.named = values["best"], values["best_test"], list(values["named"])
        self.formulations = dict(values["formulations"])
        self.rates = list(values.get("rates", []))
        set_formulations(self.model, self.formulations)
        self.metrics_length = int(values["metrics_length"])
        if isinstance(self.rule, (EventProp, Ridge)):
            self.rule.restore(values["rule"])
        if self.recipe.quantize is not None and values["grid"] is not None:
            self.grid = TrainingGrid(self.model, load_profile(self.recipe.quantize.profile), **values["grid"])


def load_start(model: TrainedModel, start: Mapping[str, Tensor]) -> None:
    """Give a model the weights of another run.

    Raises:
        InputError: They are those of another model.
    """
    try:
        model.load_state_dict(dict(start))
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise InputError(
            f"the run to start from has another model than the recipe ({first[0].strip()}); leave the recipe out to "
            "use its own, and change only [train], [data] or [quantize]"
        ) from None


def _selection_key(record: dict[str, Any], selection: str) -> tuple[float, float]:
    accuracy, loss = float(record["valid_accuracy"]), float(record["valid_loss"])
    return (accuracy, -loss) if selection == "accuracy" else (-loss, accuracy)
