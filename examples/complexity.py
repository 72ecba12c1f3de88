"""Two sources of one rate told apart by Lempel-Ziv complexity, and how far entropy estimates are from the truth.

python examples/complexity.py [strings a row of the table, default 20]
"""

import sys

import numpy as np

from snnsim.complexity import block_entropy_rate, lz_entropy_rate, match_entropy_rate
from snnsim.complexity_classifier import LZClassifier
from snnsim.datasets.sources import Bernoulli, Markov, make_sources

STRINGS = int(sys.argv[1]) if len(sys.argv) > 1 else 20

data = make_sources("markov-bernoulli")
for kind in ("rate", "lzc", "both"):
    classifier = LZClassifier(kind).fit(data.train)
    accuracy = classifier.score(data.test)
    took = 1e6 * classifier.lzc_seconds / len(data.test)
    print(f"{kind:5s} accuracy {accuracy:.4f} on {len(data.test)} samples, complexity {took:.0f} us a sample")

print(f"\nmean error of the entropy rate, bits a symbol, {STRINGS} strings")
print(f"{'source':28s}{'n':>7s}{'truth':>8s}{'lz76':>8s}{'fair':>8s}{'match':>8s}{'block':>8s}")
for source in (Bernoulli(0.5), Bernoulli(0.2), Bernoulli(0.05), Markov(0.05, 0.05), Markov(0.02, 0.18)):
    for n in (300, 1000, 10_000):
        strings = np.stack([source.steps(1, i, n, 1, 0.001)[:, 0] for i in range(STRINGS)]).astype(np.uint16)
        found = [
            lz_entropy_rate(strings, "none", alphabet=2).mean(),
            lz_entropy_rate(strings, "fair", alphabet=2).mean(),
            np.mean([match_entropy_rate(string) for string in strings]),
            np.mean([block_entropy_rate(string) for string in strings]),
        ]
        errors = "".join(f"{value - source.entropy_rate:+8.3f}" for value in found)
        print(f"{source!s:28s}{n:7d}{source.entropy_rate:8.3f}{errors}")
