"""The delay paper's network from PyPI packages: DCLS connections, SpikingJelly neurons, growing sequences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    from importlib.metadata import version

    return {name: version(name) for name in ("dcls", "spikingjelly", "torch")}


def build(task: dict[str, Any]) -> Callable[[], object]:
    """Return one training step of the network, one evaluation of a batch, or one epoch."""
    import numpy as np
    import torch
    from DCLS.construct.modules import Dcls1d
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from torch import nn

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # float32 on every side
    frames = _Frames(task) if task["what"] == "epoch" else None
    sizes = task["sizes"] if frames is None else [frames.channels, *task["sizes"], frames.classes]
    length = task["n_delays"]
    connections, nodes = [], []
    for index, (n_in, n_out) in enumerate(pairwise(sizes)):
        made = Dcls1d(n_in, n_out, kernel_count=task["taps"], dilated_kernel_size=length, bias=False, version="gauss")
        nn.init.kaiming_uniform_(made.weight, nonlinearity="relu")
        nn.init.uniform_(made.P, -(length // 2), length // 2)
        made.clamp_parameters()
        nn.init.constant_(made.SIG, task["sigma"])
        made.SIG.requires_grad = False
        connections.append(made)
        options = {
            "tau": 1.005,
            "v_reset": 0.0,
            "decay_input": False,
            "surrogate_function": surrogate.ATan(5.0),
            "detach_reset": True,
            "step_mode": "m",
        }
        if index == len(sizes) - 2:
            nodes.append(nn.ModuleList([neuron.LIFNode(v_threshold=1e9, store_v_seq=True, **options)]))
        else:
            norm = layer.BatchNorm1d(n_out, step_mode="m")
            dropout = layer.Dropout(0.4, step_mode="m")
            nodes.append(nn.ModuleList([norm, neuron.LIFNode(v_threshold=1.0, **options), dropout]))
    device = torch.device(task.get("device", "cpu"))
    model = nn.ModuleList([*connections, *nodes]).to(device)
    positions = [made.P for made in connections]
    weights = [p for p in model.parameters() if all(p is not q for q in positions) and p.requires_grad]
    optimisers = [
        torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-5),
        torch.optim.Adam(positions, lr=0.1, weight_decay=0),
    ]

    def forward(x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(model)
        y = x
        for made, rest in zip(connections, nodes, strict=True):
            padded = nn.functional.pad(y.permute(1, 2, 0), (length - 1, (length - 1) // 2))
            y = made(padded).permute(2, 0, 1)
            for module in rest:
                y = module(y)
        trace: Any = nodes[-1][0].v_seq
        scores: torch.Tensor = torch.softmax(trace, dim=2).sum(dim=0)
        return scores

    def train_on(x: torch.Tensor, labels: torch.Tensor) -> Any:
        loss = nn.functional.cross_entropy(forward(x), labels)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
        for made in connections:
            made.clamp_parameters()
        return loss.item() if device.type == "cpu" else loss.detach()  # a device is not waited for

    model.train()
    if frames is not None:
        batches = frames.loader(task["batch"])
        return lambda: sum(train_on(x.transpose(0, 1), labels) for x, labels in batches)
    generator = np.random.default_rng(0)
    counts = generator.poisson(task["rate"], (task["n_steps"], task["batch"], sizes[0])).astype(np.float32)
    x = torch.from_numpy(counts).to(device)
    labels = torch.from_numpy(generator.integers(0, sizes[-1], task["batch"])).to(device)

    def train() -> object:
        return train_on(x, labels)

    def evaluate() -> object:
        with torch.no_grad():
            return forward(x).argmax(dim=1)

    if task["what"] == "train":
        return train
    train()
    for made in connections:  # as the paper's code evaluates: width 0, whole positions
        with torch.no_grad():
            made.SIG.zero_()
            made.P.round_()
            made.clamp_parameters()
        made.version = made.DCK.version = "max"
    model.eval()
    return evaluate


class _Frames:
    """A training file as the paper's code reads it: one file of 10 ms frames a sample, made once, read every epoch.

    Time starts at a sample's first event; five neighbouring channels are summed; a batch is padded to its longest
    sample.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        import tempfile
        from pathlib import Path

        import h5py
        import numpy as np

        self.folder = tempfile.TemporaryDirectory(prefix="frames-")
        with h5py.File(task["data"]) as file:
            self.labels = file["labels"][:]
            spikes = file["spikes"]
            many = len(self.labels) if not task["samples"] else min(task["samples"], len(self.labels))
            last = max(int(spikes["units"][k].max(initial=0)) for k in range(len(self.labels)))
            self.channels = (last + 5) // 5
            self.classes = int(self.labels.max()) + 1
            self.files = []
            for k in range(many):
                times, units = spikes["times"][k].astype(np.float64), spikes["units"][k].astype(np.int64)
                steps = np.floor((times - times.min()) / 0.01).astype(np.int64) if times.size else np.zeros(0, np.int64)
                counts = np.zeros((steps.max(initial=0) + 1, self.channels), np.float64)
                np.add.at(counts, (steps, units // 5), 1)
                self.files.append(Path(self.folder.name) / f"{k}.npz")
                np.savez_compressed(self.files[-1], frames=counts)

    def loader(self, batch: int) -> Any:
        """Return the batches of an epoch in random order: frames (batch, time, channel) and labels."""
        import numpy as np
        import torch
        from torch.utils.data import DataLoader

        def read(index: int) -> tuple[torch.Tensor, int]:
            with np.load(self.files[index]) as arrays:
                return torch.from_numpy(arrays["frames"].astype(np.float32)), int(self.labels[index])

        def collate(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            frames, labels = zip(*(read(index) for index in indices), strict=True)
            return torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True), torch.tensor(labels)

        return DataLoader(range(len(self.files)), batch_size=batch, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
