"""Audio in, scores out. The one path from a file to a number; read this first.

    audio.py    path, bytes or array to checked mono samples at their own rate
    measure.py  duration, bandwidth, level, speech; flags, and reasons not to score
    features/   the encoder's frames and the full band, pooled
    model/      fusion, mixture of experts, MOS and synthesizer heads
    here        the interval, the flags, the row

Clips are scored in batches of like length. Padding never reaches a number, so a clip
gets the same score alone, in any batch and in any order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from voxpanel.audio import Audio, from_array, read_audio
from voxpanel.errors import AudioError, ConfigError
from voxpanel.features.extract import ClipInput, prepare
from voxpanel.measure import FLAGS, refusal
from voxpanel.model.checkpoint import LoadedModel, load_model
from voxpanel.model.network import HIGHEST, LOWEST
from voxpanel.records import Score

WINDOW = 64  # clips read ahead, so that batches can be of like length
BATCH_S = 80.0  # seconds of audio in a batch, padding included; bounds the memory
NON_SPEECH_CLASS = "non-speech"  # a model may know sounds that are no speech as a class
NON_SPEECH_P = 0.5  # above this the interval is the whole scale
# It is believed if the model is that sure, or if less of the active time sounds like speech.
SURE_P, SPEECH_SHARE = 0.9, 0.9


@dataclass(frozen=True, eq=False)
class Heard:
    """One item on its way: a clip to score, or the row that says why not."""

    path: str
    clip: ClipInput | None
    row: Score


class Scorer:
    """A loaded model that scores files, bytes and arrays.

    model_id: name, version and hash; it stands in every row.
    n_gates: weights in `Score.gates`; 0 for a model without a mixture.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.network = model.network
        self.record = model.record
        self.model_id = model.identity

    @classmethod
    def load(cls, source: str | Path = "base", *, device: str = "auto") -> "Scorer":
        """Load a model by name, folder or hub id.

        Raises:
            CheckpointError: it cannot be found or read.
        """
        return cls(load_model(source, device))

    @property
    def test_names(self) -> tuple[str, ...]:
        """The listening tests that the model can answer for."""
        return self.record.tests

    @property
    def n_gates(self) -> int:
        """How many gate weights a row has."""
        mixture = self.record.config.mixture
        return 0 if mixture is None else mixture.n_experts * len(self.network.panels)

    def score(
        self,
        audio: str | PathLike[str] | bytes | NDArray[Any],
        *,
        rate_hz: int | None = None,
        test: str | None = None,
    ) -> Score:
        """Score one file, the bytes of one, or one array.

        Args:
            audio: a path, an audio file's bytes, or samples `[T]` or `[C, T]`.
            rate_hz: of an array; needed there, refused elsewhere.
            test: the listening test to answer for; one of `test_names`.

        Raises:
            AudioError: it cannot be decoded, or is too short, silent or not speech.
            ConfigError: a test that the model does not know.
        """
        decoded = decode(audio, rate_hz)
        heard = self.hear(decoded.source, decoded, None)
        if heard.clip is None:
            raise AudioError(f"{decoded.source}: {heard.row.error}")
        return self.score_batch([heard], self.test_place(test))[0]

    def score_many(
        self,
        paths: Iterable[str | PathLike[str]],
        *,
        test: str | None = None,
        systems: Mapping[str, str] | None = None,
    ) -> Iterator[Score]:
        """Score files one after another; a file that fails is a row with its `error`.

        Rows come in the order of the paths, as they are ready; no more than `WINDOW`
        clips are held at a time.

        Args:
            paths: files; a row's `path` is what was given.
            test: the listening test to answer for; one of `test_names`.
            systems: path as given to system, for the column `system`.
        """
        place = self.test_place(test)
        names = (fspath(path) for path in paths)
        while window := list(islice(names, WINDOW)):
            # Not kept under a name, or one window would stay while the next is read.
            yield from self.score_window(
                [self.read(path, (systems or {}).get(path)) for path in window], place
            )

    def read(self, path: str, system: str | None) -> Heard:
        """Read and measure one file; whatever is wrong with it becomes its row."""
        try:
            return self.hear(path, read_audio(path), system)
        except Exception as error:  # noqa: BLE001  # the one place: a bad file costs its own row
            reason = str(error) if isinstance(error, AudioError) else repr(error)
            row = Score(path, system=system, model=self.model_id, error=reason)
            return Heard(path, None, row)

    def hear(self, path: str, audio: Audio, system: str | None) -> Heard:
        """Measure a clip and prepare it, unless there is a reason not to score it."""
        backbone = self.network.backbone
        clip = prepare(audio, backbone.rate_hz, backbone.min_samples)
        measured = clip.measurements
        reason = refusal(measured)
        row = Score(
            path,
            system=system,
            sample_rate_hz=measured.rate_hz,
            duration_s=measured.duration_s,
            bandwidth_hz=measured.bandwidth_hz,
            speech_s=measured.speech_s,
            flags=measured.flags,
            model=self.model_id,
            error=reason,
        )
        return Heard(path, None if reason else clip, row)

    def score_window(self, heard: Sequence[Heard], test: int) -> list[Score]:
        """Score what can be scored, in batches of like length; return rows in order."""
        rows = {place: item.row for place, item in enumerate(heard)}
        lengths = {place: len(item.clip.samples) for place, item in enumerate(heard) if item.clip}
        for places in batches_of_like_length(lengths, BATCH_S * self.network.backbone.rate_hz):
            scores = self.score_or_explain([heard[place] for place in places], test)
            rows.update(zip(places, scores, strict=True))
        return [rows[place] for place in range(len(heard))]

    def score_or_explain(self, heard: Sequence[Heard], test: int) -> list[Score]:
        """Score a batch; if that fails, clip by clip, so that one too long costs its own row."""
        try:
            return self.score_batch(heard, test)
        except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
            if len(heard) > 1:
                return [row for item in heard for row in self.score_or_explain([item], test)]
            reason = str(error).partition("\n")[0] or "out of memory"
            hint = "if it is the memory, cut the clip into shorter ones"
            return [replace(heard[0].row, error=f"the network failed ({reason}); {hint}")]

    def score_batch(self, heard: Sequence[Heard], test: int) -> list[Score]:
        """Ask the network about a batch and write the rows."""
        clips = [item.clip for item in heard if item.clip]
        verdict = self.network.listen(clips, torch.full((len(clips),), test))
        columns = (verdict.mos.cpu(), verdict.synthesizers.cpu(), verdict.gates.cpu())
        return [
            self.fill_row(item, float(mos), probabilities.tolist(), tuple(gates.tolist()))
            for item, mos, probabilities, gates in zip(heard, *columns, strict=True)
        ]

    def fill_row(
        self, heard: Heard, mos: float, probabilities: list[float], gates: tuple[float, ...]
    ) -> Score:
        """Put a verdict into a clip's row, with its interval.

        What the model takes for no speech keeps its number, but the interval is the scale.
        """
        row = heard.row
        names = self.record.synthesizers
        best = int(np.argmax(probabilities))
        flags = set(row.flags)
        if names and names[best] == NON_SPEECH_CLASS and probabilities[best] > NON_SPEECH_P:
            flags.add(self.name_doubt(heard, probabilities[best]))
        low, high = self.record.calibration.interval(mos)
        if flags & {"non-speech", "speech-in-doubt"}:
            low, high = LOWEST, HIGHEST
        return replace(
            row,
            mos=mos,
            mos_low=low,
            mos_high=high,
            synthesizer=names[best] if names else None,
            synthesizer_p=probabilities[best] if names else None,
            flags=tuple(name for name in FLAGS if name in flags),
            gates=gates,
        )

    def name_doubt(self, heard: Heard, probability: float) -> str:
        """Name the flag of a clip that the model takes for no speech; loud noise may be over it."""
        assert heard.clip is not None
        measured = heard.clip.measurements
        share = measured.speech_s / max(1e-6, measured.activity * measured.duration_s)
        is_sure = probability > SURE_P or share < SPEECH_SHARE
        return "non-speech" if is_sure else "speech-in-doubt"

    def test_place(self, test: str | None) -> int:
        """Return the place of a listening test in the embedding; 0 for none."""
        if test is None:
            return 0
        if test not in self.test_names:
            known = ", ".join(self.test_names) or "none"
            raise ConfigError(f"test {test!r}: the model {self.model_id} knows {known}")
        return self.test_names.index(test) + 1


def decode(audio: str | PathLike[str] | bytes | NDArray[Any], rate_hz: int | None) -> Audio:
    """Decode a path or bytes, or take an array with its rate."""
    if isinstance(audio, str | PathLike | bytes):
        if rate_hz is not None:
            raise AudioError("rate_hz is for arrays; a file says its own rate")
        return read_audio(audio)
    if rate_hz is None:
        raise AudioError("an array has no rate of its own; give rate_hz, such as rate_hz=24_000")
    return from_array(audio, rate_hz)


def batches_of_like_length(lengths: Mapping[int, int], budget: float) -> Iterator[list[int]]:
    """Group clips of like length, so that little of a batch is padding.

    Args:
        lengths: place to number of samples.
        budget: most samples in a batch, padding included; a longer clip is alone.

    >>> list(batches_of_like_length({0: 5, 1: 100, 2: 4, 3: 6}, budget=20))
    [[2, 0, 3], [1]]
    """
    batch: list[int] = []
    for place in sorted(lengths, key=lambda place: (lengths[place], place)):
        if batch and lengths[place] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
