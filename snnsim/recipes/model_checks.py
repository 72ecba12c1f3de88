"""What the tables of a recipe cannot say together: pools, the closed-form readout and STDP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snnsim.recipes.prune_schema import PruneSpec
    from snnsim.recipes.schema import ModelSpec
    from snnsim.recipes.train_schema import TrainSpec

__all__ = ["check_pool", "check_training"]

NOT_POOL = ("hidden", "conv", "connection", "initial", "recurrent", "recurrent_delay", "residual")
"""Keys of ``[model]`` that say nothing about a pool."""

OF_POOL = ("tau_mem", "tau_law", "tau_syn", "v_threshold", "v_reset", "reset", "t_ref", "heterogeneous")
"""Keys of ``[model.neuron]`` that the pool's own table decides."""

NEEDS_GRADIENTS = ("snip", "rigl", "deep-r")


def check_pool(model: ModelSpec) -> None:
    """Refuse what a network of one pool cannot have.

    Raises:
        ValueError: With the key and what to do.
    """
    pool, fields = model.pool, type(model).model_fields
    assert pool is not None
    wrong = [k for k in NOT_POOL if getattr(model, k) != fields[k].get_default(call_default_factory=True)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} says nothing about a pool; remove it or the table [model.pool]")
    neuron = model.neuron
    if neuron.kind not in ("lif", "cubalif"):
        raise ValueError(f"a pool has neurons of kind 'lif' or 'cubalif', got {neuron.kind!r}; change neuron.kind")
    known = type(neuron).model_fields
    wrong = [k for k in OF_POOL if getattr(neuron, k) != known[k].default]
    if wrong:
        raise ValueError(f"neuron.{wrong[0]}: the neurons of a pool are described by [model.pool]; remove it")
    if "v_reset" in neuron.learn:
        raise ValueError("neuron.learn: v_reset does nothing in a pool, whose reset subtracts the threshold; remove it")
    if neuron.kind == "lif" and pool.tau_syn != type(pool).model_fields["tau_syn"].default:
        raise ValueError(
            "pool.tau_syn: neurons of kind 'lif' have no synaptic time constant; use neuron.kind 'cubalif'"
        )
    if model.batch_norm and "input" not in pool.learn:
        raise ValueError(
            "batch_norm: its gains would train a pool whose input synapses are kept; set batch_norm = false, or add "
            "'input' to pool.learn"
        )


def check_training(model: ModelSpec, train: TrainSpec, prune: PruneSpec | None) -> None:
    """Refuse ways of training that do not fit the model.

    Raises:
        ValueError: With the key and what to do.
    """
    if train.stdp is not None:
        if model.pool is None:
            raise ValueError("train.stdp: expected a pool, whose synapses it changes; add a table [model.pool]")
        if model.batch_norm:
            raise ValueError(
                "train.stdp: runs the pool as it is, without statistics of a batch; set batch_norm = false"
            )
    if train.precision == "bf16":
        _check_precision(model, train)
    if train.learning != "ridge":
        return
    if train.epochs != 1:
        raise ValueError(f"train.epochs: learning 'ridge' solves once, after one pass; set 1, got {train.epochs}")
    readout = model.readout
    if readout.reduce not in ("mean", "last"):
        raise ValueError(
            f"readout.reduce: learning 'ridge' needs scores that are linear in the weights; use 'mean' or 'last', got "
            f"{readout.reduce!r}"
        )
    if model.conv is not None or model.readout_connection().kind != "linear":
        raise ValueError(
            "learning 'ridge' needs a readout without delays and no convolutions; use readout.connection 'linear'"
        )
    if readout.learn or model.neuron.learn:
        raise ValueError(
            "learn: learning 'ridge' trains the readout's weights alone; empty neuron.learn and readout.learn"
        )
    if model.batch_norm or model.dropout:
        raise ValueError(
            "learning 'ridge' sees every sample once, as in evaluation; set batch_norm = false and dropout = 0"
        )
    if model.pool is not None and model.pool.learn:
        raise ValueError(
            f"pool.learn: learning 'ridge' trains the readout alone; set learn = [], got {model.pool.learn}"
        )
    if train.rate.strength or train.gradient_cosine:
        raise ValueError("learning 'ridge' has no gradient; set rate.strength = 0 and gradient_cosine = false")
    if prune is not None and prune.method in NEEDS_GRADIENTS:
        raise ValueError(
            f"prune: method {prune.method!r} needs gradients, which learning 'ridge' has not; use 'magnitude'"
        )


PRODUCTS_OF_THEIR_OWN = ("meta", "levy-baxter")
"""Kinds of neurons whose synapses are drawn, not multiplied."""


def _check_precision(model: ModelSpec, train: TrainSpec) -> None:
    """Refuse bfloat16 factors where nothing is multiplied by them.

    Raises:
        ValueError: With the key and what to do.
    """
    if train.learning not in ("bptt", "sltt", "sltt-k"):
        raise ValueError(
            f"precision: 'bf16' is known for learning 'bptt', 'sltt' and 'sltt-k', not for {train.learning!r}; use "
            "'float32'"
        )
    if train.formulation == "events":
        raise ValueError("precision: 'bf16' multiplies dense matrices; set formulation to 'auto' or 'dense'")
    if model.conv is not None:
        raise ValueError("precision: 'bf16' is for layers of neurons, convolutions train in float32; use 'float32'")
    if model.neuron.kind in PRODUCTS_OF_THEIR_OWN:
        raise ValueError(
            f"precision: neurons of kind {model.neuron.kind!r} draw their synapses, which are not multiplied; use "
            "'float32'"
        )
    feeds = [*([model.connection] * bool(model.pool is None)), model.readout_connection()]
    if all(item.kind == "delayed" for item in feeds) and not model.recurrent and model.pool is None:
        raise ValueError(
            "precision: 'bf16' has no effect here: it is about products without delays, and every connection has "
            "delays; use 'float32'"
        )
