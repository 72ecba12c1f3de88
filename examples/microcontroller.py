"""Train a network with delays that fits a small microcontroller, export it as C99, and prove that it is the same.

The toy's classes differ only in the delays between ten channels. With 24 hidden neurons and delays of up to 24 steps
the compiled network takes a few kilobytes of flash and less than 2 kB of memory. Needs a C compiler.

    python examples/microcontroller.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from snnsim.datasets import open_dataset
from snnsim.errors import InputError
from snnsim.events import bin_events
from snnsim.export.c99 import write_c99
from snnsim.export.c99_judge import C99Judge
from snnsim.export.c99_proof import prove_c99
from snnsim.recipes import load_recipe
from snnsim.training import evaluate, load_run, train
from snnsim.training.prepare import pool_units, prepare_split

toy = open_dataset("toy")
recipe = load_recipe("spoken-digits", ["train.epochs=12", "model.hidden=[24]", "model.dropout=0.0", "data.channels=10"])

with TemporaryDirectory() as folder:
    train(recipe, toy, Path(folder) / "run", seed=0)
    run = load_run(Path(folder) / "run")
    network = run.network()
    in_float = evaluate(run, toy, engine="clock").accuracy

    exported = Path(folder) / "c"
    report = write_c99(network, exported, prefix="toy", scale="layer", counts=16)
    test = pool_units(prepare_split(run.recipe, toy, "test", run.manifest), run.pool)
    n_steps = test.n_steps(network.dt) + network.notes["tail_steps"]
    counts = np.minimum(np.asarray(bin_events(test, network.dt, int(n_steps.max()))).astype(np.int64), 16)
    with C99Judge(exported) as program:
        in_c = float(np.mean(np.argmax(program.run(counts, n_steps).scores, axis=1) == test.labels))
        try:  # code for a 32 bit processor, if this compiler can make it
            machine, sizes = "32 bit", program.sizes(("-std=c99", "-Os", "-m32", "-ffreestanding", "-fno-pic"))
        except InputError:
            machine, sizes = "host", program.sizes(("-std=c99", "-Os"))
    proof = prove_c99(network, exported)

print(f"accuracy on {len(test)} new samples: {in_float:.3f} in float, {in_c:.3f} in C")
if sizes is not None:
    flash, memory = sizes["text"] + sizes["data"], sizes["data"] + sizes["bss"]
    print(f"-Os, {machine}: {flash} bytes of flash, {memory} bytes of memory")
    print(f"fits 32 kB of flash and 2 kB of memory: {flash <= 32768 and memory <= 2048}")
print(*report.changes, sep="\n")
print(*proof.sentences(), sep="\n")
