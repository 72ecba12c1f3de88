"""Each example runs as its own program and says what it should."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "simulate_by_hand.py": ["accuracy 1.000 on 200 samples"],
    "train_in_python.py": ["best-validation: test accuracy", "same predictions in torch and on the clock engine: True"],
    "export_with_proof.py": ["0 of 2480000 neuron-steps differ", "The proof holds."],
    "cuba.py": ["exc: 5.", "inh: 5.", "coefficient of variation of the intervals 0."],
    "brunel_regimes.py": ["SR       synchronous regular", "AI       asynchronous irregular"],
    "microcircuit.py": ["7717 neurons, 298", "L23E", "L6I"],
    "encode_audio.py": ["of 200 channels"],
    "lyapunov_pruning.py": ["mean of 1 pools", "heterogeneous: noise, all four", "homogeneous: noise"],
    "teacher_recovery.py": ["seed 0: start 61.2% off on average, after training 0."],
    "local_rules.py": [
        "tempotron: accuracy 0.",
        "class means of channels: 0.533 on new voices",
        "with its first weights, 0.6",
    ],
    "microcontroller.py": ["in C", "fits 32 kB of flash and 2 kB of memory: True", "The proof holds."],
    "complexity.py": ["lzc   accuracy 1.0000 on 400 samples", "Markov(alpha=0.05, beta=0.05)"],
    "lorenz_ltc.py": [
        "guess 'as now': test MSE",
        "liquid: 1155 parameters, test MSE 0.0",
        "leaky tanh: 1153 parameters, test MSE 0.0",
    ],
    "online_gradients.py": ["rtrl, one layer                                         1.000  1.000  1.000  1.000"],
}


def test_every_example_is_listed() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for sentence in SAYS[name]:
        assert sentence in done.stdout
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"
