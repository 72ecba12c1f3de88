"""Lempel-Ziv features of spike trains and a classifier on them, which tells apart sources of equal rate.

The pipeline (complexity of every output train, nearest class mean) follows Rudnicka, Szczepanski and Pregowska,
"Learning Internal Biological Neuron Parameters and Complexity-Based Encoding for Improved SNN Performance", 2025, as
far as its abstract tells; the details are this package's reconstruction.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.complexity import Method, lz_complexity
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events, bin_events
from snnsim.files import write_json
from snnsim.grid import check_dt

__all__ = ["FeatureKind", "LZClassifier", "LZFeatures", "lz_features"]

FeatureKind = Literal["rate", "lzc", "both"]
Rule = Literal["class-mean", "logistic"]
Float64 = npt.NDArray[np.float64]
SCHEMA = 1


@dataclass(frozen=True)
class LZFeatures:
    """Features of samples.

    Attributes:
        values: float64, shape (sample, feature): complexities of the units, or rates (spikes a second), or both, the
            rates first.
        lzc_seconds: Seconds that counting words took for all samples; 0 for rates alone.
    """

    values: Float64
    lzc_seconds: float


def lz_features(
    spikes: Events | npt.ArrayLike,
    n_steps: int | npt.ArrayLike | None = None,
    *,
    dt: float = 0.001,
    features: FeatureKind = "lzc",
    method: Method = "lz76",
    threads: int = 1,
) -> LZFeatures:
    """Return the complexity (and rate) of every unit in every sample.

    A train becomes a string of zeros and ones: whether the unit has any spike in a step.

    Args:
        spikes: Events, which are put on the grid by :func:`snnsim.grid.time_to_step`; or spikes or counts of shape
            (time, batch, unit).
        n_steps: Steps of every sample, or one number a sample; default those of the events, or all of the array.
        dt: Step in seconds.
        features: Which.
        method: Which words are counted.
        threads: Threads.

    Raises:
        InputError: A wrong shape or choice; an event after the last step; a sample without steps.
    """
    check_dt(dt)
    if features not in ("rate", "lzc", "both"):
        raise InputError(f"features: expected 'rate', 'lzc' or 'both', got {features!r}")
    if isinstance(spikes, Events):
        steps = spikes.n_steps(dt) if n_steps is None else _steps(n_steps, len(spikes))
        counts = np.asarray(bin_events(spikes, dt, steps), dtype=np.float64)
    else:
        counts = np.asarray(spikes, dtype=np.float64)
        if counts.ndim != 3:
            raise InputError(f"spikes: expected Events or shape (time, batch, unit), got shape {counts.shape}")
        if not np.all((counts >= 0) & np.isfinite(counts)):
            raise InputError("spikes: expected counts, finite and not negative")
        steps = _steps(len(counts) if n_steps is None else n_steps, counts.shape[1])
    if steps.size and not (steps.min() >= 1 and steps.max() <= len(counts)):
        raise InputError(f"n_steps: expected 1 to {len(counts)} steps a sample, got {steps.min()} to {steps.max()}")
    inside = np.arange(len(counts))[:, None] < steps[None, :]
    parts = []
    if features != "lzc":
        parts.append((counts * inside[:, :, None]).sum(axis=0) / (steps[:, None] * dt))
    seconds = 0.0
    if features != "rate":
        binary = np.ascontiguousarray((counts > 0).transpose(1, 2, 0), dtype=np.uint16)  # (sample, unit, time)
        begin = time.perf_counter()
        values = np.zeros(binary.shape[:2])
        for length in np.unique(steps):
            same = steps == length
            strings = binary[same][:, :, :length].reshape(-1, length)
            found = lz_complexity(strings, method, alphabet=2, threads=threads)
            values[same] = found.reshape(-1, binary.shape[1])
        seconds = time.perf_counter() - begin
        parts.append(values)
    return LZFeatures(np.concatenate(parts, axis=1), seconds)


def _steps(n_steps: npt.ArrayLike, n_samples: int) -> npt.NDArray[np.int64]:
    """Return the steps of every sample, whole numbers."""
    given = np.asarray(n_steps)
    if given.dtype.kind not in "iu" or given.shape not in ((), (n_samples,)):
        raise InputError(f"n_steps: expected a whole number, or one a sample ({n_samples}), got {n_steps!r}")
    return np.broadcast_to(given.astype(np.int64), n_samples)


class LZClassifier:
    """Classify samples by the complexity of their trains, their rates, or both.

    ``class-mean`` takes the class whose mean of the training features is nearest; ``logistic`` is multinomial logistic
    regression with a quadratic penalty. Both work on features divided by their standard deviation in training.

    Args:
        features: Which features.
        rule: Which decision.
        method: Which words are counted.
        dt: Step in seconds.
        penalty: Factor of half the squared weights beside the summed loss of the logistic rule.
        threads: Threads that count words.

    Raises:
        InputError: An unknown choice.
    """

    def __init__(
        self,
        features: FeatureKind = "lzc",
        *,
        rule: Rule = "class-mean",
        method: Method = "lz76",
        dt: float = 0.001,
        penalty: float = 1.0,
        threads: int = 1,
    ) -> None:
        if features not in ("rate", "lzc", "both"):
            raise InputError(f"features: expected 'rate', 'lzc' or 'both', got {features!r}")
        if rule not in ("class-mean", "logistic"):
            raise InputError(f"rule: expected 'class-mean' or 'logistic', got {rule!r}")
        if method not in ("lz76", "lz78"):
            raise InputError(f"method: expected 'lz76' or 'lz78', got {method!r}")
        if not isinstance(penalty, (int, float)) or not 0 < penalty < np.inf:
            raise InputError(f"penalty: expected a positive number, got {penalty!r}")
        self.features: FeatureKind = features
        self.rule: Rule = rule
        self.method: Method = method
        self.dt = check_dt(dt)
        self.penalty = float(penalty)
        self.threads = threads
        self.lzc_seconds = 0.0
        self._classes: npt.NDArray[np.int64] | None = None
        self._shift = self._scale = self._bias = np.zeros(0)
        self._weight = np.zeros((0, 0))

    def fit(self, spikes: Events | npt.ArrayLike, labels: npt.ArrayLike | None = None) -> LZClassifier:
        """Learn from samples; ``labels`` default to those of the Events. Returns itself."""
        if labels is None:
            if not isinstance(spikes, Events):
                raise InputError("fit: expected labels beside an array of spikes")
            labels = spikes.labels
        x = self._features(spikes)
        y = np.asarray(labels)
        if y.shape != (len(x),) or y.dtype.kind not in "iu" or (y.size and y.min() < 0):
            raise InputError(f"labels: expected {len(x)} classes, whole numbers from 0 on, got shape {y.shape}")
        classes, index = np.unique(y, return_inverse=True)
        if classes.size < 2:
            raise InputError(f"fit: expected samples of at least two classes, got {classes.size}")
        self._shift = x.mean(axis=0)
        spread = x.std(axis=0)
        self._scale = np.where(spread > 0, spread, 1.0)
        x = (x - self._shift) / self._scale
        if self.rule == "class-mean":
            # the nearest mean has the largest  m x - m m / 2
            self._weight = np.stack([x[index == c].mean(axis=0) for c in range(classes.size)])
            self._bias = -0.5 * np.sum(self._weight**2, axis=1)
        else:
            self._weight, self._bias = _logistic(x, index, classes.size, self.penalty)
        self._classes = classes.astype(np.int64)
        return self

    def predict(self, spikes: Events | npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return classes, int64, shape (sample,); :attr:`lzc_seconds` is what counting words took in this call."""
        if self._classes is None:
            raise InputError("LZClassifier: expected fit() or load() before predict()")
        x = self._features(spikes)
        if x.shape[1] != self._shift.size:
            raise InputError(f"predict: expected {self._shift.size} features as in training, got {x.shape[1]}")
        scores = (x - self._shift) / self._scale @ self._weight.T + self._bias
        found: npt.NDArray[np.int64] = self._classes[np.argmax(scores, axis=1)]
        return found

    def score(self, spikes: Events | npt.ArrayLike, labels: npt.ArrayLike | None = None) -> float:
        """Return the share of samples classified as labelled; ``labels`` default to those of the Events."""
        if labels is None and not isinstance(spikes, Events):
            raise InputError("score: expected labels beside an array of spikes")
        truth = spikes.labels if isinstance(spikes, Events) and labels is None else np.asarray(labels)
        found = self.predict(spikes)
        if truth.shape != found.shape:
            raise InputError(f"labels: expected {found.size} classes, got shape {truth.shape}")
        if not found.size or truth.min() < 0:
            raise InputError("score: expected at least one sample, and a label for each")
        return float(np.mean(found == truth))

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier as JSON."""
        if self._classes is None:
            raise InputError("LZClassifier: expected fit() before save()")
        content = {
            "kind": "snnsim lz classifier",
            "schema": SCHEMA,
            "features": self.features,
            "rule": self.rule,
            "method": self.method,
            "dt": self.dt,
            "penalty": self.penalty,
            "classes": self._classes.tolist(),
            "shift": self._shift.tolist(),
            "scale": self._scale.tolist(),
            "weight": self._weight.tolist(),
            "bias": self._bias.tolist(),
        }
        write_json(path, content)

    @classmethod
    def load(cls, path: str | Path) -> LZClassifier:
        """Read a saved classifier; its predictions are the same.

        Raises:
            SnnsimFileError: The file cannot be read or is no classifier of this schema.
        """
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["kind"] != "snnsim lz classifier" or content["schema"] != SCHEMA:
                raise SnnsimFileError(path, "schema", f"expected an LZ classifier of schema {SCHEMA}")
            made = cls(
                content["features"],
                rule=content["rule"],
                method=content["method"],
                dt=content["dt"],
                penalty=content["penalty"],
            )
            made._classes = np.asarray(content["classes"], dtype=np.int64)
            for name in ("shift", "scale", "weight", "bias"):
                setattr(made, f"_{name}", np.asarray(content[name], dtype=np.float64))
            k, width = made._classes.size, made._shift.size
            if (made._weight.shape, made._bias.shape, made._scale.shape) != ((k, width), (k,), (width,)):
                raise SnnsimFileError(path, "weight", "its shapes do not fit together; save it again")
        except OSError as error:
            raise SnnsimFileError(path, "", f"cannot be read ({error.strerror})") from error
        except (KeyError, TypeError, InputError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise SnnsimFileError(path, "", f"is no saved LZ classifier ({error})") from error
        except ValueError as error:
            if isinstance(error, SnnsimFileError):
                raise
            raise SnnsimFileError(path, "", f"is no saved LZ classifier ({error})") from error
        return made

    def _features(self, spikes: Events | npt.ArrayLike) -> Float64:
        found = lz_features(spikes, dt=self.dt, features=self.features, method=self.method, threads=self.threads)
        self.lzc_seconds = found.lzc_seconds
        return found.values


def _logistic(x: Float64, index: npt.NDArray[np.intp], k: int, penalty: float) -> tuple[Float64, Float64]:
    """Minimise the summed cross entropy plus ``penalty / 2`` times the squared weights; biases are free."""
    from scipy.optimize import minimize

    truth = np.eye(k)[index]

    def loss(flat: Float64) -> tuple[float, Float64]:
        weight, bias = flat[:-k].reshape(k, -1), flat[-k:]
        scores = x @ weight.T + bias
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        slope = np.exp(logs) - truth
        value = -np.sum(logs * truth) + 0.5 * penalty * np.sum(weight**2)
        return float(value), np.concatenate([(slope.T @ x + penalty * weight).reshape(-1), slope.sum(axis=0)])

    found = minimize(loss, np.zeros(k * x.shape[1] + k), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return found.x[:-k].reshape(k, -1), found.x[-k:]
