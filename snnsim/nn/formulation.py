"""Which way a layer computes the same numbers, chosen before training by sizes and by how full the data are.

Nothing here looks at a batch, a clock or the number of threads: a run that is repeated or resumed chooses the same.
"""

from __future__ import annotations

from snnsim.errors import InputError
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.model import SpikingModel

__all__ = ["EVENT_DENSITY", "choose_formulations"]

EVENT_DENSITY = 0.08
"""Share of entries that are not zero below which listing them beats a dense product.

Measured with 12 800 rows of 700 inputs, product and weight gradient together: the two are equal at 12 % for 256
targets and at 9 % for 1024.
"""


def choose_formulations(model: SpikingModel, density: float) -> dict[str, str]:
    """Set how the model's connections compute, and return it by layer.

    The first layer without delays lists the events of its input where these are few; other layers without delays use
    dense products. Layers with delays train in the frequency domain.

    Args:
        model: Model.
        density: Share of (step, channel) pairs of the training data that hold an event.

    Raises:
        InputError: The density is not a share.
    """
    if not 0 <= density <= 1:
        raise InputError(f"density: expected a share between 0 and 1, got {density!r}")
    chosen: dict[str, str] = {}
    for index, layer in enumerate(model.layers()):
        connection = layer.connection
        name = "readout" if layer is model.readout else f"layer{index + 1}"
        if isinstance(connection, Linear):
            connection.formulation = "events" if index == 0 and density < EVENT_DENSITY else "dense"
            chosen[name] = connection.formulation
        elif isinstance(connection, DelayedLinear):
            chosen[name] = "frequency"
    return chosen
