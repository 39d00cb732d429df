"""How far a score moves when nothing that one hears has changed.

    python bench/invariance.py CLIPS

CLIPS is a folder. From up to `--n` clips of it, evenly spread over its files: alone against
batches of 16 mixed lengths, another order, another number of threads; the same recording
at four rates, band-limited beforehand; other gains. Prints the worst and the mean difference.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
import torch
from machine import describe_machine
from numpy.typing import NDArray

import voxpanel
from voxpanel.audio import Audio, read_audio
from voxpanel.errors import AudioError
from voxpanel.inputs import list_inputs
from voxpanel.score import Scorer

RATES_HZ = (48_000, 44_100, 24_000, 16_000)
GAINS_DB = (-30.0, -20.0, -10.0, 6.0)
CUT_HZ = 7_500.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--model", default="base")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "invariance.md"
    )
    arguments = parser.parse_args()
    scorer = voxpanel.load(arguments.model)
    found = [item.path for item in list_inputs([str(arguments.clips)])]
    paths = [found[place] for place in np.linspace(0, len(found) - 1, arguments.n).astype(int)]
    rows = [*batches(scorer, paths), *rates(scorer, paths), *gains(scorer, paths)]
    lines = [
        "# How far a score moves when nothing that one hears has changed",
        f"{len(paths)} clips, model {scorer.model_id}. `python bench/invariance.py`",
        describe_machine(),
        "| the same clip | n | worst difference, MOS | mean |\n|---|---|---|---|",
    ]
    for name, differences in rows:
        values = np.abs(differences)
        lines[-1] += f"\n| {name} | {len(values)} | {values.max():.6f} | {values.mean():.6f} |"
    table = "\n\n".join(lines) + "\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(table, encoding="utf-8")
    print(table)


def scores_of(scorer: Scorer, paths: Sequence[str]) -> NDArray[np.float64]:
    """Score files through batches; NaN where there is no score."""
    rows = scorer.score_many(paths)
    return np.array([np.nan if row.mos is None else row.mos for row in rows])


def batches(scorer: Scorer, paths: Sequence[str]) -> list[tuple[str, NDArray[np.float64]]]:
    """Compare alone with in a batch, in another order, with other threads."""
    alone = np.concatenate([scores_of(scorer, [path]) for path in paths])
    scored = ~np.isnan(alone)
    n_threads = torch.get_num_threads()
    together = scores_of(scorer, paths)
    backwards = scores_of(scorer, paths[::-1])[::-1]
    torch.set_num_threads(1 if n_threads > 1 else 2)
    threads = scores_of(scorer, paths)
    torch.set_num_threads(n_threads)
    again = scores_of(scorer, paths)
    named = {
        "in a batch": together,
        "in another order": backwards,
        "with another number of threads": threads,
        "a second time": again,
    }
    return [(name, (scores - alone)[scored]) for name, scores in named.items()]


def rates(scorer: Scorer, paths: Sequence[str]) -> list[tuple[str, NDArray[np.float64]]]:
    """Compare one recording, band-limited, at several rates."""
    differences: dict[int, list[float]] = {rate_hz: [] for rate_hz in RATES_HZ[1:]}
    for audio in readable(paths):
        limited = cut(soxr.resample(audio.samples, audio.rate_hz, RATES_HZ[0], "VHQ"), RATES_HZ[0])
        try:
            first = mos_of(scorer, limited, RATES_HZ[0])
            for rate_hz, values in differences.items():
                copy = soxr.resample(limited, RATES_HZ[0], rate_hz, "VHQ")
                values.append(mos_of(scorer, copy, rate_hz) - first)
        except AudioError:
            continue  # neither is scored
    return [
        (f"band-limited to {CUT_HZ / 1000} kHz, at {rate_hz} Hz against 48000 Hz", np.array(values))
        for rate_hz, values in differences.items()
    ]


def gains(scorer: Scorer, paths: Sequence[str]) -> list[tuple[str, NDArray[np.float64]]]:
    """Compare a clip with louder and softer copies, none of which clips."""
    differences: dict[float, list[float]] = {gain_db: [] for gain_db in GAINS_DB}
    for audio in readable(paths):
        samples = audio.samples * np.float32(0.45 / max(1e-6, float(np.abs(audio.samples).max())))
        try:
            first = mos_of(scorer, samples, audio.rate_hz)
            for gain_db, values in differences.items():
                copy = samples * np.float32(10 ** (gain_db / 20))
                values.append(mos_of(scorer, copy, audio.rate_hz) - first)
        except AudioError:
            continue
    return [(f"at {gain_db:+.0f} dB", np.array(values)) for gain_db, values in differences.items()]


def readable(paths: Sequence[str]) -> list[Audio]:
    """Read the files, at most 10 s of each."""
    audios = [read_audio(path) for path in paths]
    return [
        Audio(audio.samples[: 10 * audio.rate_hz], audio.rate_hz, 1, audio.source)
        for audio in audios
    ]


def mos_of(scorer: Scorer, samples: NDArray[np.float32], rate_hz: int) -> float:
    """Score an array."""
    mos = scorer.score(samples, rate_hz=rate_hz).mos
    assert mos is not None
    return mos


def cut(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Remove everything above `CUT_HZ`."""
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / rate_hz) > CUT_HZ] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


if __name__ == "__main__":
    main()
