"""Connections of a sequence in stretches: gradients of the weights are summed over all of them in one place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import event_product as events
from snnsim.kernels.lanes import run_ranges
from snnsim.nn.cuda import on_cuda
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.frequency import frequency_delay
from snnsim.nn.precision import product_dtype
from snnsim.nn.products import EVENT_COLUMNS, product
from snnsim.nn.reductions import add_bias

__all__ = ["Leaves", "StreamedConnection"]


class Leaves:
    """Tensors that are computed from parameters once a batch, and whose gradients are summed before they go on."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def take(self, tensor: Tensor) -> Tensor:
        """Return a leaf with the values of ``tensor``; the tensor itself if it has no graph."""
        if not tensor.requires_grad:
            return tensor
        leaf = tensor.detach().requires_grad_()
        self._pairs.append((tensor, leaf))
        return leaf

    def finish(self) -> None:
        """Send the summed gradients on to the parameters."""
        pairs = [(tensor, leaf.grad) for tensor, leaf in self._pairs if leaf.grad is not None]
        if pairs:
            torch.autograd.backward([tensor for tensor, _ in pairs], [grad for _, grad in pairs])
        self._pairs = []


class _StreamedProduct(torch.autograd.Function):
    """``x weight^T``; the gradient of the weights is added where the connection keeps it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Tensor, link: StreamedConnection) -> Tensor:
        rows = x.detach().flatten(0, 1).contiguous()
        ctx.link, ctx.shape = link, x.shape
        y = link.multiply(rows)
        ctx.rows = link.remember(rows) if ctx.needs_input_grad[1] else None
        return y.view(x.shape[0], x.shape[1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        upstream = gradients[0].flatten(0, 1).contiguous()
        if ctx.rows is not None:
            ctx.link.accumulate(ctx.rows, upstream)
        link = ctx.link
        dx = product(upstream, link.weight, link.factors).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return dx, None, None


class StreamedConnection:
    """A connection over the stretches of one batch.

    Args:
        connection: Connection of the model.
        dtype: Type of the run.
        leaves: Where gradients are summed.

    Attributes:
        history: Steps of input before a stretch that it depends on.
        device: Where its weights are.
    """

    def __init__(self, connection: Linear | DelayedLinear, dtype: torch.dtype, leaves: Leaves) -> None:
        self.bias = None if connection.bias is None else leaves.take(connection.bias.to(dtype))
        self.history = 0
        self.device = connection.weight.device
        self.kernel: Tensor | None = None
        if isinstance(connection, DelayedLinear):
            self.history = connection.n_delays - 1
            self.kernel = leaves.take(connection.dense_kernel().to(dtype))
            return
        self.sparse = connection.formulation == "events" and not on_cuda(connection.weight)
        self.factors = product_dtype()
        leaf = connection.weight.to(dtype)
        self.weight = leaf.detach()
        self.place = leaf.new_zeros((), requires_grad=leaf.requires_grad)
        self._leaf = leaf
        self._by_source = self.weight.t().contiguous() if self.sparse else self.weight
        self._sums: Tensor | None = None

    def multiply(self, rows: Tensor) -> Tensor:
        """Return the product of rows (rows, n_in) with the weights."""
        if not self.sparse:
            return product(rows, self.weight.T, self.factors)
        threads = torch.get_num_threads()
        self._listed = events.list_events(rows.numpy(), threads)
        out = torch.empty(rows.shape[0], self.weight.shape[0], dtype=rows.dtype)
        arguments = (*self._listed, self._by_source.numpy().reshape(-1), out.shape[1], out.numpy().reshape(-1))
        run_ranges(events.event_product, arguments, rows.shape[0], threads, events.ROWS)
        return out

    def remember(self, rows: Tensor) -> Any:
        """Return what :meth:`accumulate` needs of the input of a stretch: its events, or all of it."""
        return self._listed if self.sparse else rows

    def accumulate(self, rows: Any, upstream: Tensor) -> None:
        """Add the gradient of the weights that a stretch gives."""
        if not self.sparse:
            found = product(upstream.T, rows, self.factors)
            self._sums = found if self._sums is None else self._sums.add_(found)
            return
        if self._sums is None:
            self._sums = torch.zeros_like(self._by_source)
        n_out = upstream.shape[1]
        arguments = (*rows, upstream.numpy().reshape(-1), n_out, self._sums.numpy().reshape(-1))
        run_ranges(events.event_accumulate, arguments, n_out, torch.get_num_threads(), EVENT_COLUMNS)

    def forward(self, window: Tensor) -> Tensor:
        """Return the currents of a stretch.

        Args:
            window: Its inputs with the ``history`` steps before it, shape (history + time, batch, n_in).

        Returns:
            Shape (time, batch, n_out).
        """
        if self.kernel is not None:
            y = frequency_delay(window, self.kernel)[self.history :]
        else:
            y = _StreamedProduct.apply(window, self.place, self)  # type: ignore[no-untyped-call]
        return y if self.bias is None else add_bias(y, self.bias)

    def finish(self) -> None:
        """Hand the summed gradient of the weights to the parameter."""
        if self.kernel is None and self._sums is not None:
            self._leaf.backward(self._sums.t() if self.sparse else self._sums)  # type: ignore[no-untyped-call]
            self._sums = None
