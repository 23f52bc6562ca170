"""What measured runs say about an estimate: a small correction per family and device.

The model is ``measured = context + kw * weights + kd * dynamic + c + own``, where ``context`` (the
engine's own libraries) is measured by itself: ``kw`` for a runtime that stores weights otherwise
than thought, ``kd`` for caches and activations, ``c`` for buffers that depend on neither, and
``own`` is what an estimate is off by for requests of about this size alone. The golden rows show
that most of an error is of the last kind (another phase makes the peak, another kernel runs), so
one run corrects requests like it almost wholly, and the rest of its family hardly; many runs move
the family to what they say together. It is a Gaussian process whose mean is the estimate as it
is, linear in the parts and with a squared-exponential covariance over their sizes. Runs that do
not fit the others count less (Huber's weights). Source: Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2.2 and 2.7; Huber, Robust Statistics.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import mul

from workbench.memory.terms import Estimate, Term

#: Standard deviations before anything was measured: of kw, of kd, and of c as a share of a peak.
#: These and the next are chosen on the golden rows, so that one run makes the others of its
#: family no worse (`benchmarks/memory_accuracy.py`).
PRIOR_SPREADS = (0.005, 0.03, 0.005)
#: Standard deviation of ``own`` as a share of the peak, and how far it reaches: the standard
#: deviation, in natural logarithms of the sizes of weights and of the dynamic part.
OWN_SPREAD, OWN_REACH = 0.03, 0.1
#: What runs of the same request differ by, as a share of the peak: allocator and threads.
NOISE = 0.01
#: The spread of an estimate that says none, and how many runs an estimate's own counts for.
_USUAL_SPREAD, _PRIOR_RUNS = 0.02, 3.0
#: The bound is so many standard deviations of the prediction above the median.
_BOUND_SIGMAS = 3.0
_HUBER_SIGMAS = 2.0
_ROUNDS = 8

Vector = tuple[float, float, float]


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
    """What ``samples`` say.

    ``factors`` are kw, kd and c / ``scale_bytes``. ``weights`` of the samples make ``own``,
    ``triangle`` is the Cholesky factor of their covariance. As shares of the peak, ``error`` is
    what the estimate was off by before, and ``spread`` what is left (root mean squares);
    ``highest_ratio`` is the largest measured / corrected peak among the runs.
    """

    factors: Vector
    samples: tuple[Sample, ...]
    weights: tuple[float, ...]
    triangle: tuple[tuple[float, ...], ...]
    scale_bytes: float
    error: float
    spread: float
    highest_ratio: float = 1.0

    @property
    def runs(self) -> int:
        return len(self.samples)

    def own_bytes(self, parts: Parts) -> int:
        """What runs of about this size were off by, beyond what the factors say."""
        near = [_nearness(parts, sample.parts) for sample in self.samples]
        return round(OWN_SPREAD**2 * _dot(near, self.weights) * parts.total_bytes)

    def median_bytes(self, parts: Parts) -> int:
        """The corrected peak; never less than what is there before the model."""
        weights, dynamic, constant = self.factors
        learned = weights * parts.weights_bytes + dynamic * parts.dynamic_bytes
        added = learned + constant * self.scale_bytes + self.own_bytes(parts)
        return parts.context_bytes + max(0, round(added))

    def upper_bytes(self, parts: Parts, own_spread: float = _USUAL_SPREAD) -> int:
        """The corrected bound: wider for few runs, and for requests unlike them.

        ``own_spread`` is the standard deviation that the estimate gives itself. It counts as much
        as three runs, so that one good run does not make a wide bound narrow; and a request
        unlike those seen is no less certain than that, unless the runs were further off.
        """
        left = _PRIOR_RUNS * own_spread**2 + self.runs * self.spread**2
        unlike = min(self._variance(parts), max(own_spread, self.error) ** 2)
        variance = left / (_PRIOR_RUNS + self.runs) + unlike
        ratio = max(1 + _BOUND_SIGMAS * math.sqrt(variance), self.highest_ratio)
        return math.ceil(self.median_bytes(parts) * ratio)

    def _variance(self, parts: Parts) -> float:
        """Of the prediction, without noise, as a share of the peak."""
        shared = [_covariance(parts, sample.parts, self.scale_bytes) for sample in self.samples]
        known = _forward(self.triangle, shared)
        return max(0.0, _covariance(parts, parts, self.scale_bytes) - _dot(known, known))

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


def spread_of(estimate: Estimate) -> float:
    """The standard deviation that an estimate gives a usual run, as a share of its peak."""
    usual = [phase.upper_bytes for phase in estimate.phases if not phase.is_rare]
    upper = sum(term.upper_bytes for term in estimate.resident) + max(usual, default=0)
    return max(0.0, upper / max(1, estimate.peak_bytes) - 1) / _BOUND_SIGMAS


def learned_runs(terms: Sequence[Term]) -> int:
    """How many runs corrected the estimate that has these terms; 0: it is as it was made."""
    for term in terms:
        if term.name == "learned":
            return int(term.provenance.split()[4])
    return 0


def fit(samples: Sequence[Sample]) -> Correction:
    """The correction that ``samples`` (at least one) support."""
    scale = statistics.median(max(1, sample.measured_bytes) for sample in samples)
    all_parts = [sample.parts for sample in samples]
    covariance = [[_covariance(a, b, scale) for b in all_parts] for a in all_parts]
    xs = [_features(parts, scale) for parts in all_parts]
    # what is not explained yet: kw = kd = 1 and c = 0 is the origin
    ys = [s.measured_bytes / max(1, s.parts.total_bytes) - 1 for s in samples]
    trust = [1.0] * len(samples)
    for _ in range(_ROUNDS):
        triangle = _cholesky(covariance, [NOISE**2 / share for share in trust])
        weights = _backward(triangle, _forward(triangle, ys))
        residuals = [y - _dot(row, weights) for y, row in zip(ys, covariance, strict=True)]
        # the median tells the spread of the many from the few that lie apart
        width = max(NOISE, 1.4826 * statistics.median(abs(r) for r in residuals))
        reach = _HUBER_SIGMAS * width
        trust = [min(1.0, reach / abs(r)) if r else 1.0 for r in residuals]
    seen = sum(t * r * r for t, r in zip(trust, residuals, strict=True))
    weights_found, dynamic, constant = (
        spread**2 * sum(x[i] * weight for x, weight in zip(xs, weights, strict=True))
        for i, spread in enumerate(PRIOR_SPREADS)
    )
    found = Correction(
        factors=(1 + weights_found, 1 + dynamic, constant),
        samples=tuple(samples),
        weights=tuple(weights),
        triangle=triangle,
        scale_bytes=scale,
        error=math.sqrt(statistics.fmean(y * y for y in ys)),
        spread=math.sqrt(seen / sum(trust)),
    )
    highest = max(s.measured_bytes / max(1, found.median_bytes(s.parts)) for s in samples)
    return replace(found, highest_ratio=max(1.0, highest))


def apply(correction: Correction, estimate: Estimate) -> Estimate:
    """The estimate with corrected terms, and a term ``learned``: c, what is its own, the bound."""
    parts = parts_of(estimate)
    weights, dynamic, constant = correction.factors
    constant_bytes = round(constant * correction.scale_bytes) + correction.own_bytes(parts)
    said = correction.provenance

    def corrected(term: Term, factor: float, *, is_rare: bool = False) -> Term:
        size = max(0, round(factor * term.size_bytes))
        return term.model_copy(
            update={
                "size_bytes": size,
                # what runs show is no news of a phase that they did not have
                "upper_bytes": max(size, term.upper_bytes) if is_rare else size,
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
        phase.model_copy(
            update={
                "terms": tuple(
                    corrected(term, dynamic, is_rare=phase.is_rare) for term in phase.terms
                )
            }
        )
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
    upper_bytes = correction.upper_bytes(parts, spread_of(estimate))
    missing = max(0, upper_bytes - found.upper_bytes)
    learned = _learned(learned_bytes, learned_bytes + missing, said)
    return found.model_copy(update={"resident": (*resident, learned)})


# -- inside ----------------------------------------------------------------------------------


def _learned(size_bytes: int, upper_bytes: int, provenance: str) -> Term:
    return Term(
        name="learned", size_bytes=size_bytes, upper_bytes=upper_bytes, provenance=provenance
    )


def _features(parts: Parts, scale_bytes: float) -> Vector:
    """What kw, kd and c are multiplied with, as shares of the peak."""
    peak = max(1.0, float(parts.total_bytes))
    return parts.weights_bytes / peak, parts.dynamic_bytes / peak, scale_bytes / peak


def _nearness(a: Parts, b: Parts) -> float:
    """1 for equal sizes, near 0 for such as teach nothing about each other."""
    pairs = (a.weights_bytes, b.weights_bytes), (a.dynamic_bytes, b.dynamic_bytes)
    apart = [math.log(max(1, one) / max(1, other)) / OWN_REACH for one, other in pairs]
    return math.exp(-_dot(apart, apart) / 2)


def _covariance(a: Parts, b: Parts, scale_bytes: float) -> float:
    """Of the errors of two estimates, as shares of their peaks, before anything was measured."""
    pairs = zip(_features(a, scale_bytes), _features(b, scale_bytes), PRIOR_SPREADS, strict=True)
    return sum(x * y * spread**2 for x, y, spread in pairs) + OWN_SPREAD**2 * _nearness(a, b)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    total: float = sum(map(mul, a, b))
    return total


def _cholesky(
    matrix: Sequence[Sequence[float]], noise: Sequence[float]
) -> tuple[tuple[float, ...], ...]:
    """The lower triangle whose square is ``matrix`` with ``noise`` on its diagonal."""
    rows: list[tuple[float, ...]] = []
    for i, line in enumerate(matrix):
        row: list[float] = []
        for j, above in enumerate(rows):
            row.append((line[j] - _dot(row, above)) / above[j])
        rows.append((*row, math.sqrt(line[i] + noise[i] - _dot(row, row))))
    return tuple(rows)


def _forward(triangle: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """``x`` of ``triangle @ x = values``."""
    found: list[float] = []
    for row, value in zip(triangle, values, strict=True):
        found.append((value - _dot(found, row)) / row[-1])
    return found


def _backward(triangle: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """``x`` of ``triangle.T @ x = values``."""
    found = list(values)
    for i in range(len(found) - 1, -1, -1):
        found[i] /= triangle[i][i]
        for j in range(i):
            found[j] -= triangle[i][j] * found[i]
    return found
