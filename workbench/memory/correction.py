"""What measured runs say about an estimate: a small correction per family and device.

The model is ``measured = context + kw * weights + kd * dynamic + c``, where ``context`` (the
engine's own libraries) is measured by itself: ``kw`` for a runtime that stores weights otherwise
than thought, ``kd`` for caches and activations, ``c`` for buffers that depend on neither. It is a
Bayesian linear regression whose prior is the estimate as it is (kw = kd = 1, c = 0), so one run
already moves it, most where the prior is least sure, and many runs move it to what they say. Runs
that do not fit the others count less (Huber's weights). Source: Bishop, Pattern Recognition and
Machine Learning, 3.3; Huber, Robust Statistics.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.memory.terms import Estimate, Phase, Term

#: Standard deviations before anything was measured: of kw, of kd, and of c as a share of a peak.
#: These and the noise are chosen on the golden rows, so that one run makes the others of its
#: family better and never much worse (`benchmarks/memory_accuracy.py`).
PRIOR_SPREADS = (0.01, 0.07, 0.02)
#: What runs of a family differ by that no factor explains, as a share of the peak: allocator,
#: threads, and how well the estimate ranks one request against another.
NOISE = 0.02
#: The residual spread before there are residuals, and how many runs that guess counts for.
_PRIOR_RESIDUAL, _PRIOR_RUNS = 0.02, 3.0
#: The bound is so many standard deviations of the prediction above the median.
_BOUND_SIGMAS = 3.0
_HUBER_SIGMAS = 2.0
_ROUNDS = 8

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]


@dataclass(frozen=True)
class Parts:
    """An estimated peak as the correction sees it, in bytes."""

    context_bytes: int
    weights_bytes: int
    dynamic_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.context_bytes + self.weights_bytes + self.dynamic_bytes


@dataclass(frozen=True)
class Sample:
    """One clean run: its estimate before any correction, and the peak that was measured."""

    parts: Parts
    measured_bytes: int


@dataclass(frozen=True)
class Correction:
    """What ``runs`` runs say.

    ``factors`` are kw, kd and c / ``scale_bytes``, ``covariance`` theirs. ``spread`` is the
    standard deviation of the residuals as a share of the peak, ``highest_ratio`` the largest
    measured / corrected peak among the runs.
    """

    factors: Vector
    covariance: Matrix
    scale_bytes: float
    runs: int
    spread: float
    highest_ratio: float

    def median_bytes(self, parts: Parts) -> int:
        """The corrected peak; never less than what is there before the model."""
        weights, dynamic, constant = self.factors
        learned = weights * parts.weights_bytes + dynamic * parts.dynamic_bytes
        return parts.context_bytes + max(0, round(learned + constant * self.scale_bytes))

    def upper_bytes(self, parts: Parts, own_spread: float = 0.0) -> int:
        """The corrected bound: wider for few runs, and for requests unlike them.

        ``own_spread`` is the standard deviation that the estimate gives itself; it counts as
        much as three runs, so that one good run does not make a wide bound narrow.
        """
        median = self.median_bytes(parts)
        x = _features(parts, median, self.scale_bytes)
        seen = (_PRIOR_RUNS * own_spread**2 + self.runs * self.spread**2) / (
            _PRIOR_RUNS + self.runs
        )
        variance = max(self.spread**2, seen) + _quadratic(self.covariance, x)
        ratio = max(1 + _BOUND_SIGMAS * math.sqrt(variance), self.highest_ratio)
        return math.ceil(median * ratio)

    @property
    def provenance(self) -> str:
        return f"learned from n = {self.runs} runs, residual {100 * self.spread:.1f} %"


def parts_of(estimate: Estimate) -> Parts:
    """Context, weights and the rest of an estimate's peak."""
    resident = {"context": 0, "weights": 0}
    for term in estimate.resident:
        if term.name in resident:
            resident[term.name] += term.size_bytes
    fixed = sum(resident.values())
    return Parts(resident["context"], resident["weights"], estimate.peak_bytes - fixed)


def learned_runs(terms: Sequence[Term]) -> int:
    """How many runs corrected the estimate that has these terms; 0: it is as it was made."""
    for term in terms:
        if term.name == "learned":
            return int(term.provenance.split()[4])
    return 0


def fit(samples: Sequence[Sample]) -> Correction:
    """The correction that ``samples`` (at least one) support."""
    scale = statistics.median(max(1, sample.measured_bytes) for sample in samples)
    xs = [_features(s.parts, max(1, s.measured_bytes), scale) for s in samples]
    # what is not explained yet: kw = kd = 1 and c = 0 is the origin
    ys = [(s.measured_bytes - s.parts.total_bytes) / max(1, s.measured_bytes) for s in samples]
    trust = [1.0] * len(samples)
    for _ in range(_ROUNDS):
        found, covariance = _regress(xs, ys, trust)
        residuals = [y - _dot(found, x) for x, y in zip(xs, ys, strict=True)]
        # the median tells the spread of the many from the few that lie apart
        width = max(NOISE, 1.4826 * statistics.median(abs(r) for r in residuals))
        reach = _HUBER_SIGMAS * width
        trust = [min(1.0, reach / abs(r)) if r else 1.0 for r in residuals]
    seen = sum(t * r * r for t, r in zip(trust, residuals, strict=True))
    spread = math.sqrt((_PRIOR_RUNS * _PRIOR_RESIDUAL**2 + seen) / (_PRIOR_RUNS + sum(trust)))
    correction = Correction(
        factors=(1 + found[0], 1 + found[1], found[2]),
        covariance=covariance,
        scale_bytes=scale,
        runs=len(samples),
        spread=spread,
        highest_ratio=1.0,
    )
    highest = max(s.measured_bytes / max(1, correction.median_bytes(s.parts)) for s in samples)
    return Correction(**{**vars(correction), "highest_ratio": max(1.0, highest)})


def apply(correction: Correction, estimate: Estimate) -> Estimate:
    """The estimate with corrected terms, and a term ``learned`` that carries c and the bound."""
    parts = parts_of(estimate)
    weights, dynamic, constant = correction.factors
    constant_bytes = round(constant * correction.scale_bytes)
    said = correction.provenance

    def corrected(term: Term, factor: float) -> Term:
        size = max(0, round(factor * term.size_bytes))
        return term.model_copy(
            update={
                "size_bytes": size,
                "upper_bytes": size,
                "provenance": f"{term.provenance}; x{factor:.3f} {said}",
            }
        )

    resident = []
    for term in estimate.resident:
        if term.name == "context":
            resident.append(term.model_copy(update={"upper_bytes": term.size_bytes}))
        else:
            resident.append(corrected(term, weights if term.name == "weights" else dynamic))
    if constant_bytes < 0:  # a term has no negative size: the largest one gives it
        largest = max(range(len(resident)), key=lambda i: resident[i].size_bytes)
        size = max(0, resident[largest].size_bytes + constant_bytes)
        resident[largest] = resident[largest].model_copy(
            update={"size_bytes": size, "upper_bytes": size}
        )
    phases = tuple(
        Phase(name=phase.name, terms=tuple(corrected(term, dynamic) for term in phase.terms))
        for phase in estimate.phases
    )
    learned_bytes = max(0, constant_bytes)
    found = Estimate(
        **{
            **dict(estimate),
            "resident": (*resident, _learned(learned_bytes, learned_bytes, said)),
            "phases": phases,
        }
    )
    own_spread = (estimate.upper_bytes / max(1, estimate.peak_bytes) - 1) / _BOUND_SIGMAS
    missing = max(0, correction.upper_bytes(parts, own_spread) - found.upper_bytes)
    learned = _learned(learned_bytes, learned_bytes + missing, said)
    return found.model_copy(update={"resident": (*resident, learned)})


# -- inside ----------------------------------------------------------------------------------


def _learned(size_bytes: int, upper_bytes: int, provenance: str) -> Term:
    return Term(
        name="learned", size_bytes=size_bytes, upper_bytes=upper_bytes, provenance=provenance
    )


def _features(parts: Parts, peak_bytes: float, scale_bytes: float) -> Vector:
    """What kw, kd and c are multiplied with, as shares of the peak."""
    peak = max(1.0, float(peak_bytes))
    return parts.weights_bytes / peak, parts.dynamic_bytes / peak, scale_bytes / peak


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _quadratic(matrix: Matrix, x: Vector) -> float:
    return max(0.0, _dot(x, [_dot(row, x) for row in matrix]))


def _regress(
    xs: Sequence[Vector], ys: Sequence[float], trust: Sequence[float]
) -> tuple[Vector, Matrix]:
    """Posterior mean and covariance of the three departures from the prior."""
    precision = [[1 / PRIOR_SPREADS[i] ** 2 if i == j else 0.0 for j in range(3)] for i in range(3)]
    target = [0.0, 0.0, 0.0]
    for x, y, weight in zip(xs, ys, trust, strict=True):
        for i in range(3):
            target[i] += weight * x[i] * y / NOISE**2
            for j in range(3):
                precision[i][j] += weight * x[i] * x[j] / NOISE**2
    covariance = _inverse(precision)
    mean = [_dot(row, target) for row in covariance]
    return (mean[0], mean[1], mean[2]), covariance


def _inverse(matrix: Sequence[Sequence[float]]) -> Matrix:
    """Of a symmetric positive definite 3x3 matrix, by cofactors."""
    (a, b, c), (_, e, f), (_, _, i) = matrix
    cofactors = (
        (e * i - f * f, c * f - b * i, b * f - c * e),
        (c * f - b * i, a * i - c * c, b * c - a * f),
        (b * f - c * e, b * c - a * f, a * e - b * b),
    )
    determinant = a * cofactors[0][0] + b * cofactors[0][1] + c * cofactors[0][2]
    first, second, third = (
        (row[0] / determinant, row[1] / determinant, row[2] / determinant) for row in cofactors
    )
    return first, second, third
