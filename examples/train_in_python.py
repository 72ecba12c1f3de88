"""Train a small network with learnable delays on the toy, freeze it and check that both give the same answers.

python examples/train_in_python.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from snnsim.datasets import open_dataset
from snnsim.recipes import load_recipe
from snnsim.training import evaluate, load_run, train

changes = ["train.epochs=4", "model.hidden=[64]", "data.channels=40"]
recipe = load_recipe("spoken-digits", changes)
toy = open_dataset("toy")

with TemporaryDirectory() as folder:
    result = train(recipe, toy, Path(folder) / "run", seed=1)
    run = load_run(Path(folder) / "run")
    model, network = run.model(), run.network()  # torch module and its frozen description
    in_torch = evaluate(run, toy, engine="torch")
    frozen = evaluate(run, toy, engine="clock")

print(f"{result.label}: test accuracy {result.accuracy:.3f}")
print(f"{sum(p.numel() for p in model.parameters())} parameters, {[p.name for p in network.projections]}")
print("what freezing did:", *network.notes["frozen"], sep="\n  ")
print(f"same predictions in torch and on the clock engine: {np.array_equal(in_torch.predictions, frozen.predictions)}")
