"""Evaluation: accuracy of a model, a run or a frozen network on one split of a data set."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.device import check_device
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.learning.eventprop import continuous_output
from snnsim.learning.losses import Loss
from snnsim.learning.protocol import TensorStream
from snnsim.nn.context import Context
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.cuda import check_torch_device, on_cuda, use_device
from snnsim.nn.inference import infer, infers
from snnsim.nn.model import SpikingModel
from snnsim.nn.trained import Output, TrainedModel
from snnsim.recipes import Recipe
from snnsim.training.device_checks import check_evaluation
from snnsim.training.distributed import World
from snnsim.training.prepare import pool_units, prepare_split, stream
from snnsim.training.upload import device_of, upload

if TYPE_CHECKING:
    from snnsim.datasets.dataset import Dataset
    from snnsim.network import Network
    from snnsim.training.runs import Run

__all__ = ["EvalResult", "evaluate", "evaluate_model", "evaluate_network", "fan_out", "operations_a_sample"]


@dataclass(frozen=True)
class EvalResult:
    """Outcome of an evaluation.

    Attributes:
        accuracy: Share of samples whose highest score is their class (over samples, not over batches).
        loss: Mean loss of a sample; nan where the engine gives no loss.
        n_samples: Samples.
        predictions: Class of the highest score, int64, shape (n_samples,).
        labels: True classes, int64, shape (n_samples,).
        logits: Scores, float64, shape (n_samples, n_classes).
        rates: Spikes a neuron and step of every hidden layer.
        spikes: Spikes of all hidden layers and samples.
        synaptic_operations: Synaptic operations a sample (spikes times their synapses).
        engine: What computed it.
        seconds: Wall time.
    """

    accuracy: float
    loss: float
    n_samples: int
    predictions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float64]
    rates: tuple[float, ...]
    spikes: int
    synaptic_operations: float
    engine: str
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)


def fan_out(model: TrainedModel) -> tuple[list[float], list[float]]:
    """Return the synapses of one source: of every connection in order, and of every layer's recurrence.

    In a convolutional network a source's synapses depend on its place, with a mask on which source it is; these are
    means.
    """
    if isinstance(model, ConvSpikingModel):
        return model.fan_out(), [0.0] * len(model.hidden_sizes())
    assert isinstance(model, SpikingModel)
    forward = []
    for layer in model.layers():
        connection = layer.connection
        forward.append(float(connection.n_out) * getattr(connection, "taps", 1) * getattr(connection, "density", 1.0))
    recurrent: list[float] = []
    for block in model.blocks:
        weight = getattr(block.neuron, "weight", None)
        recurrent.append(0 if weight is None or weight.dim() < 2 else weight.shape[0] * cast(Any, block.neuron).density)
    return forward, recurrent


def operations_a_sample(model: TrainedModel, input_events: float, spikes: list[float], n_samples: int) -> float:
    """Return the effective synaptic operations a sample: every active source and step times its synapses.

    Args:
        model: Model.
        input_events: Pairs of input channel and step with at least one event, all samples.
        spikes: Spikes of every hidden layer, all samples.
        n_samples: Samples.
    """
    forward, recurrent = fan_out(model)
    total = input_events * forward[0]
    for index, count in enumerate(spikes):
        total += count * (forward[index + 1] + recurrent[index])
    return float(total) / max(1, n_samples)


def _output(model: TrainedModel, x: Tensor, context: Context) -> Output:
    if isinstance(model, SpikingModel) and x.dtype == torch.float32 and not on_cuda(x) and infers(model):
        return infer(model, x, context)
    output: Output = model(x, None, context)
    return output


@torch.no_grad()
def evaluate_model(
    model: TrainedModel, events: Events, recipe: Recipe, pool: int, *, world: World | None = None
) -> EvalResult:
    """Evaluate a torch model in evaluation mode: rounded delays, no dropout, every sample on its own steps.

    A model that learned by ``eventprop`` runs in continuous time, with the delays that it has learned.
    The model's mode (training or evaluation) is the same afterwards.

    Args:
        model: Model; it is evaluated on the device that it is on.
        events: Aligned samples, channels not yet pooled.
        recipe: Recipe of the model.
        pool: Neighbouring channels summed into one.
        world: Processes that share the work; every process gets the whole result.
    """
    world = world or World()
    start = time.perf_counter()
    training = model.training
    model.eval()
    part = events.subset(np.arange(len(events))[world.part(len(events))]) if world.size > 1 else events
    batches = stream(part, recipe, pool, model.tail_steps, seed=0, training=False)
    logits, losses = [], []
    device = device_of(model)
    weighted = torch.zeros(len(model.hidden_sizes()), dtype=torch.float64, device=device)
    neuron_steps = 0.0
    inputs = 0.0
    sizes = np.array(model.hidden_sizes(), dtype=np.float64)
    for batch in batches.epoch(0):
        mask = upload(batch.mask, device)
        context = Context(mask=mask, sample_id=upload(batch.sample_id, device))
        x = upload(batch.x, device)
        spec = recipe.train
        if spec.learning == "eventprop":
            assert isinstance(model, SpikingModel)
            output = continuous_output(model, TensorStream(x, context), shaping=spec.rule.shaping)
        else:
            output = _output(model, x, context)
        loss = Loss(upload(batch.labels, device), spec.loss, 0.0, spec.mse_share, spec.mse_target)
        logits.append(output.logits.double())
        losses.append(loss.of_samples(output, mask, model.readout.skip_steps).double())
        valid = float(batch.mask.sum())
        weighted += output.rates.double() * valid
        neuron_steps += valid
        inputs += float(np.count_nonzero(batch.x))
    model.train(training)
    scores = world.gather(torch.cat(logits).cpu() if logits else torch.zeros(0, model.n_classes, dtype=torch.float64))
    loss_values = world.gather(torch.cat(losses).cpu() if losses else torch.zeros(0, dtype=torch.float64))
    sums = world.sum([*weighted.tolist(), neuron_steps, inputs])
    spikes = [rate * size for rate, size in zip(sums[: len(sizes)], sizes, strict=True)]
    predictions = scores.argmax(dim=1).numpy()
    labels = np.asarray(events.labels)
    return EvalResult(
        accuracy=float(np.count_nonzero(predictions == labels) / max(1, labels.size)),
        loss=float(np.sum(loss_values.numpy()) / max(1, labels.size)),
        n_samples=int(labels.size),
        predictions=predictions,
        labels=labels,
        logits=scores.numpy(),
        rates=tuple(value / max(1.0, sums[-2]) for value in sums[: len(sizes)]),
        spikes=round(sum(spikes)),
        synaptic_operations=operations_a_sample(model, sums[-1], spikes, labels.size),
        engine="torch",
        seconds=time.perf_counter() - start,
    )


def evaluate_network(
    network: Network, events: Events, pool: int, tail_steps: int, *, engine: str = "clock"
) -> EvalResult:
    """Evaluate a frozen network on one of our engines.

    Args:
        network: Frozen network with a readout.
        events: Aligned samples, channels not yet pooled.
        pool: Neighbouring channels summed into one.
        tail_steps: Empty steps appended to every sample.
        engine: Engine name.
    """
    from snnsim.engines import simulate

    start = time.perf_counter()
    result = simulate(network, pool_units(events, pool), engine=engine, tail_steps=tail_steps)
    if result.logits is None:
        raise InputError("network: expected one with a readout, got none; accuracy needs scores of classes")
    labels = np.asarray(events.labels)
    predictions = np.asarray(result.predictions, dtype=np.int64)
    steps = float(np.sum(events.n_steps(network.dt) + tail_steps))
    counts = {name: spikes.n_events for name, spikes in result.spikes.items()}
    return EvalResult(
        accuracy=float(np.count_nonzero(predictions == labels) / max(1, labels.size)),
        loss=float("nan"),
        n_samples=int(labels.size),
        predictions=predictions,
        labels=labels,
        logits=np.asarray(result.logits),
        rates=tuple(count / max(1.0, steps * network.population(name).size) for name, count in counts.items()),
        spikes=int(sum(counts.values())),
        synaptic_operations=float(result.operations.synaptic_operations) / max(1, labels.size),
        engine=engine,
        seconds=time.perf_counter() - start,
        extra={"operations": result.operations},
    )


def evaluate(
    run: Run | str | Path,
    dataset: Dataset,
    *,
    split: Literal["train", "valid", "test"] = "test",
    engine: str = "torch",
    which: Literal["best", "last"] | None = None,
    device: str = "cpu",
) -> EvalResult:
    """Evaluate a training run on a split of a data set; a look at the test set is noted in the run's manifest.

    Args:
        run: A run, or the path of its folder.
        dataset: Data set, with the same channels as in training.
        split: Which samples.
        engine: ``torch`` (the training model itself) or an engine for its frozen network.
        which: ``best`` validation epoch or ``last``; none takes the best if there is one.
        device: ``cpu`` or ``cuda``, for engine ``torch``; the engines for frozen networks know where they run.

    Raises:
        InputError: Unknown engine or split, data that do not fit, or a device that is not to be had.
    """
    from snnsim.engines import ENGINES
    from snnsim.training.runs import load_run

    if engine != "torch" and engine not in ENGINES:
        raise InputError(f"engine {engine!r} is not known; known: torch, {', '.join(ENGINES)}")
    if device != "cpu" and engine != "torch":
        raise InputError(
            f"device {device!r}: says where engine 'torch' runs, got engine {engine!r}; leave one of them out"
        )
    if engine == "cuda":
        check_device("cuda", "engine")
    check_torch_device(device)  # before a look at the test set is noted
    if isinstance(run, (str, Path)):
        run = load_run(run)
    if device != "cpu":
        check_evaluation(run.recipe)
    chosen = which or run.default
    events = prepare_split(run.recipe, dataset, split, run.manifest)
    if events.n_classes > run.n_classes:
        raise InputError(
            f"data set {dataset.name!r} has {events.n_classes} classes, the run was trained on {run.n_classes}"
        )
    if split == "test":
        run.folder.record_test_run(f"eval, engine {engine}", [f"{chosen}"])
    if engine == "torch":
        with use_device(device) as there:
            return evaluate_model(run.model(chosen).to(there), events, run.recipe, run.pool)
    network = run.network(chosen)
    return evaluate_network(network, events, run.pool, int(network.notes["tail_steps"]), engine=engine)
