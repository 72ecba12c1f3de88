"""Batch norm of the channels of feature maps, over all steps or step by step."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, distributed

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.maps import check_maps, to_maps
from snnsim.nn.norm import BatchNormTime, all_reduce

__all__ = ["BatchNormMaps", "Statistics"]

Statistics = Literal["step", "time"]


class BatchNormMaps(BatchNormTime):
    """Batch normalisation of every channel of a map.

    ``over="time"``: one mean and variance over all valid steps, samples and pixels. ``over="step"``: every step is
    normalised by its own mean and variance over samples and pixels, and the running averages, which evaluation uses,
    move once a step (Meng et al. 2023): what a step gives does not depend on later ones, so that training may go step
    by step. A step with fewer than two valid values (all samples have ended) is normalised by the running averages and
    does not move them.

    Args:
        channels: Channels of the maps.
        over: ``step`` or ``time``.
        eps: Added to the variance.
        momentum: Share of the new statistics in the running average.
    """

    def __init__(self, channels: int, *, over: Statistics = "step", eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        if over not in ("step", "time"):
            raise InputError(f"BatchNormMaps: expected over to be 'step' or 'time', got {over!r}")
        self.over: Statistics = over

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"{super().extra_repr()}, over={self.over}"

    def forward(self, x: Tensor, state: None = None, context: Context | None = None) -> tuple[Tensor, None]:
        """Return the normalised maps (time, batch, channel, height, width) and no state.

        Args:
            x: Input, shape (time, batch, channel, height, width).
            state: None; the layer has no state over time.
            context: Its mask says which steps of which samples count.
        """
        check_maps("BatchNormMaps", x, self.size)
        n_steps, batch, channels, height, width = x.shape
        pixels = height * width
        rows = x.permute(0, 1, 3, 4, 2).reshape(n_steps, batch * pixels, channels)
        if self.training:
            mask = None if context is None else context.mask
            if mask is not None and mask.shape != x.shape[:2]:
                raise InputError(
                    f"BatchNormMaps: expected a mask of shape {tuple(x.shape[:2])}, got {tuple(mask.shape)}"
                )
            wide = None if mask is None else mask.repeat_interleave(pixels, dim=1)
            rows = self._over_time(rows, wide) if self.over == "time" else self._by_step(rows, wide)
        else:
            scale, shift = self.affine(x.dtype)
            rows = rows * scale + shift
        return to_maps(rows.reshape(n_steps, batch, pixels * channels), (channels, height, width)), None

    def _over_time(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        return super().forward(rows, None, Context(mask=mask))[0]

    def _total(self, here: float, rows: Tensor) -> float:
        """Return the valid values of all processes; a device is asked only where there are several or a mask."""
        if not on_cuda(rows):
            return float(all_reduce(np.array([here]))[0])
        if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
            return here
        total = torch.tensor([here], dtype=torch.float64, device=rows.device)
        distributed.all_reduce(total)
        return float(total)

    def _by_step(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        out = []
        counts = None if mask is None else mask.flatten(1).sum(dim=1).tolist()  # a device is waited for once
        for step in range(rows.shape[0]):
            valid = None if mask is None else mask[step : step + 1]
            here = float(rows.shape[1] if counts is None else counts[step])
            if self._total(here, rows) < 2:
                scale, shift = self.affine(rows.dtype)
                out.append(rows[step : step + 1] * scale + shift)
            else:
                out.append(self._over_time(rows[step : step + 1], valid))
        return torch.cat(out) if out else rows
