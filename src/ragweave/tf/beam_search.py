"""Greedy search, sampling and beam search over the scores of a step function. Needs only numpy.

The rules are those of transformers' loops, so that equal scores give equal tokens.

Notation used for array shapes
    N searches side by side, R rows (beams or samples) of each, t tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ragweave.tf.generation_options import GenerationOptions, Ids, Processor, Scores, log_softmax, warp

Step = Callable[[Ids, NDArray[np.int32] | None], Scores]
"""From the newest token of every row, (N*R,), and the row that each continues, (N*R,) or None for the same one, to
the scores of the next token, (N*R, V)."""

_NO_SCORE = -1e9


@dataclass(frozen=True, slots=True)
class Beam:
    """An answer, or the beginning of one."""

    tokens: tuple[int, ...]  # its tokens, start token included
    log_probs: tuple[float, ...] = ()  # log-probabilities of all tokens but the first, before any processor
    # Sum of the processed log-probabilities; of a finished answer, the score that ranked it.
    score: float = float("nan")

    def extended(self, token: int, log_prob: float, score: float = float("nan")) -> Beam:
        """The beam with one more token."""
        return Beam((*self.tokens, token), (*self.log_probs, log_prob), score)


def search(
    step: Step,
    n_searches: int,
    options: GenerationOptions,
    processors: Sequence[Processor],
    rng: np.random.Generator,
) -> list[list[Beam]]:
    """Decode N answers; ``rng`` is the source of randomness for sampling.

    Returns:
        For each search ``num_return_sequences`` answers, best first.
    """
    if options.num_beams > 1:
        return _beam_search(step, n_searches, options, processors, rng)
    # Greedy search and sampling, in which rows do not depend on each other.
    size = options.num_return_sequences
    rows = [Beam((options.decoder_start_token_id,)) for _ in range(n_searches * size)]
    newest = np.full(len(rows), options.decoder_start_token_id, dtype=np.int64)
    ids = newest[:, None]
    running = np.ones(len(rows), dtype=bool)
    while running.any() and ids.shape[1] < options.max_length:
        scores = step(newest, None)
        log_probs = log_softmax(scores)
        for process in processors:
            scores = process(ids, scores)
        if options.do_sample:
            # The Gumbel-max trick: the argmax of log-probabilities with Gumbel noise is a sample.
            newest = (warp(scores, options) + rng.gumbel(size=scores.shape)).argmax(axis=1)
        else:
            newest = scores.argmax(axis=1)
        for row in running.nonzero()[0]:
            rows[row] = rows[row].extended(int(newest[row]), float(log_probs[row, newest[row]]))
        newest = np.where(running, newest, options.pad_token_id)
        ids = np.concatenate([ids, newest[:, None]], axis=1)
        running &= ~np.isin(newest, options.eos_token_id)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass
class _BeamSearch:
    """One beam search."""

    options: GenerationOptions
    running: list[Beam]  # the R unfinished beams, best first
    finished: list[Beam] = field(default_factory=list)  # at most R answers, best first
    improvable: bool = True  # whether a better answer than the finished ones is expected

    @property
    def full(self) -> bool:
        """Whether there are R answers."""
        return len(self.finished) == self.options.num_beams

    @property
    def done(self) -> bool:
        """Whether the answers are final."""
        return not self.improvable or (self.full and self.options.early_stopping is True)

    def advance(self, candidates: list[tuple[int, Beam]]) -> list[int]:
        """Continue with the best candidates, and return the number of the beam that each running beam extends.

        Candidates are extended beams with the number of the beam that each extends, best first or in the order of
        sampling. There are more than R, so that enough are left when some end.
        """
        options, length = self.options, len(candidates[0][1].tokens)
        ends = [
            length >= options.max_length or beam.tokens[-1] in options.eos_token_id for _, beam in candidates
        ]
        if not self.done:
            penalty = (length - 1) ** options.length_penalty
            ended = [
                Beam(beam.tokens, beam.log_probs, beam.score / penalty)
                for (_, beam), end in zip(candidates[: options.num_beams], ends, strict=False)
                if end
            ]
            # Sorting is stable: among equal scores the earlier answer stays first.
            ranked = sorted([*self.finished, *ended], key=lambda beam: -beam.score)
            self.finished = ranked[: options.num_beams]
        order = sorted(
            range(len(candidates)), key=lambda number: (ends[number], -candidates[number][1].score)
        )
        best = order[: options.num_beams]
        self.running = [candidates[number][1] for number in best]
        if ends[best[0]]:  # all candidates ended
            self.improvable = False
        elif self.full:
            # The score that the best running beam can reach: at its current length, or at the longest one.
            longest = options.early_stopping == "never" and options.length_penalty > 0.0
            final_length = (options.max_length if longest else length) - 1
            reachable = self.running[0].score / final_length**options.length_penalty
            self.improvable = self.improvable and reachable > self.finished[-1].score
        return [candidates[number][0] for number in best]


def _beam_search(
    step: Step,
    n_searches: int,
    options: GenerationOptions,
    processors: Sequence[Processor],
    rng: np.random.Generator,
) -> list[list[Beam]]:
    size = options.num_beams
    n_candidates = max(2, 1 + len(options.eos_token_id)) * size
    # All beams begin alike, so only the first is continued.
    first = [Beam((options.decoder_start_token_id,), score=_NO_SCORE if row else 0.0) for row in range(size)]
    searches = [_BeamSearch(options, first) for _ in range(n_searches)]
    parents: NDArray[np.int32] | None = None
    while not all(current.done for current in searches):
        ids = np.array([beam.tokens for current in searches for beam in current.running], dtype=np.int64)
        scores = log_probs = log_softmax(step(ids[:, -1], parents))
        for process in processors:
            scores = process(ids, scores)
        if options.do_sample:
            scores = warp(scores, options)
        vocabulary = scores.shape[1]
        sums = np.array([[beam.score for beam in current.running] for current in searches], dtype=np.float32)
        sums = (scores.reshape(n_searches, size, vocabulary) + sums[..., None]).reshape(n_searches, -1)
        # The columns with the highest sums of log-probability and Gumbel noise are a sample without replacement.
        noise = rng.gumbel(size=sums.shape) if options.do_sample else 0.0
        best = _highest(sums + noise, n_candidates)
        rows = []
        for n, current in enumerate(searches):
            candidates = []
            # Samples come in the order of their noise; the best of them go first, as in transformers from 5.24 on.
            for column in sorted(best[n].tolist(), key=lambda column: -sums[n, column]):
                beam, token = divmod(column, vocabulary)
                log_prob = float(log_probs[n * size + beam, token])
                extended = current.running[beam].extended(token, log_prob, float(sums[n, column]))
                candidates.append((beam, extended))
            rows += [n * size + beam for beam in current.advance(candidates)]
        parents = np.array(rows, dtype=np.int32)
    return [current.finished[: options.num_return_sequences] for current in searches]


def _highest(values: Scores, count: int) -> NDArray[np.int64]:
    """Columns of the highest values of each row, highest first, (N, count)."""
    count = min(count, values.shape[1])
    columns = np.argpartition(values, -count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(values, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
