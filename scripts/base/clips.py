"""The clips that `base` is trained on: as they came, equalised, degraded.

An equalised copy has been through a random band limit and codec, a degraded one has a
defect as well. Both keep their class: the name of a synthesizer should not be a rate or
an encoder in disguise, and noise over speech should not make it `non-speech`.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

from voxpanel.audio import read_audio, resample
from voxpanel.augment import degradations as degrade

Samples = NDArray[np.float32]
SHORTEST_S, LONGEST_S = 0.8, 12.0  # of a clip; a longer one is cut, for the sake of time
BANDS_HZ = (4_000, 5_500, 8_000, 11_025, 12_000, 16_000)
N_EQUALISED, N_DEGRADED = 1, 1


@dataclass(frozen=True)
class Source:
    """A clip as it came: its file, what made it, and what is said in it."""

    path: Path
    synthesizer: str
    sentence: str


@dataclass(frozen=True)
class Made:
    """A clip that was written, and how: `clean`, `equal`, `degraded` or `noise`."""

    path: Path
    synthesizer: str
    sentence: str
    kind: str


def synthesizer_clips(folder: Path) -> list[Source]:
    """List the clips of public demo pages; variants of one synthesizer are one class."""
    sources = []
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sentence = row["group"] or row["path"]
            sources.append(Source(folder / row["path"], family(row["system"]), sentence))
    return sources


def family(system: str) -> str:
    """Return the class of a system.

    >>> [family(name) for name in ("natural-prompt", "CosyVoice2", "HiFiGAN-ablation", "VITS-ms")]
    ['natural', 'CosyVoice2-0.5B', 'HiFiGAN', 'VITS']
    """
    if system.startswith("natural"):
        return "natural"
    if system.startswith("CosyVoice2"):
        return "CosyVoice2-0.5B"
    if system.startswith("CosyVoice-300M"):
        return "CosyVoice-300M"
    for name in ("Tacotron2+HiFiGAN", "Tacotron2+WaveGlow", "HiFiGAN", "VITS", "FireRedTTS"):
        if system.startswith(name):
            return name
    return system


def noise_clips(folder: Path) -> list[Source]:
    """List the environmental recordings, which are a class of their own."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in {".ogg", ".wav", ".flac"})
    return [Source(path, "non-speech", f"noise {path.stem}") for path in paths]


def make_clips(sources: list[Source], noises: list[Source], out: Path, seed: int) -> Iterator[Made]:
    """Write every clip with its copies as 16-bit FLAC; those that exist are kept.

    A clip's copies depend on the seed and its place in the list alone.
    """
    loud = [read_audio(source.path) for source in noises]
    for place, source in enumerate(sources):
        generator = np.random.default_rng([seed, place])
        audio = read_audio(source.path)
        if audio.duration_s < SHORTEST_S:
            continue
        samples = audio.samples[: round(LONGEST_S * audio.rate_hz)]
        noise = loud[int(generator.integers(len(loud)))].at(audio.rate_hz)
        for number in range(1 + N_EQUALISED + N_DEGRADED):
            kind = "clean" if number == 0 else "equal" if number <= N_EQUALISED else "degraded"
            if kind == "equal":
                altered = equalise(samples, audio.rate_hz, generator)
            elif kind == "degraded":
                altered = spoil(samples, audio.rate_hz, noise, generator)
            else:
                altered = samples
            path = out / f"{place:04d}-{number}.flac"
            write(path, altered, audio.rate_hz)
            yield Made(path, source.synthesizer, source.sentence, kind)


def make_noise_clips(noises: list[Source], out: Path, seed: int) -> Iterator[Made]:
    """Write what is no speech: recordings as they came, band-limited, and plain noise and tones."""
    for place, source in enumerate(noises):
        generator = np.random.default_rng([seed, 1, place])
        audio = read_audio(source.path)
        limited = degrade.limit_band(audio.samples, audio.rate_hz, int(generator.choice(BANDS_HZ)))
        for number, samples in enumerate((audio.samples, limited)):
            path = out / f"noise-{place:03d}-{number}.flac"
            write(path, samples, audio.rate_hz)
            yield Made(path, "non-speech", source.sentence, "noise")
    for place in range(60):
        generator = np.random.default_rng([seed, 2, place])
        path = out / f"made-{place:03d}.flac"
        write(path, made_up(place, generator), 16_000)
        yield Made(path, "non-speech", f"made up {place}", "noise")


def made_up(place: int, generator: Generator) -> Samples:
    """Return 4 s at 16 kHz of gated or coloured noise, chords, sweeps or clicks."""
    n = 64_000
    time_s = np.arange(n) / 16_000
    kind = place % 4
    if kind == 0:  # noise of a random slope, coming and going
        spectrum = np.fft.rfft(generator.standard_normal(n))
        slope = generator.uniform(0, 1.2)
        sound = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** slope, n)
        sound *= 1 + generator.uniform(0, 1) * np.sin(
            2 * np.pi * generator.uniform(0.5, 6) * time_s
        )
    elif kind == 1:  # chords that change twice a second
        notes = 110 * 2 ** (generator.integers(0, 36, (8, 3)) / 12)
        played = np.repeat(notes, n // 8, axis=0)
        sound = np.sin(2 * np.pi * np.cumsum(played, axis=0) / 16_000).sum(axis=1)
        sound *= np.exp(-3 * (time_s % 0.5))
    elif kind == 2:  # a sweep
        low, high = np.sort(generator.uniform(80, 6_000, 2))
        sound = np.sin(2 * np.pi * np.cumsum(np.linspace(low, high, n)) / 16_000)
    else:  # clicks
        sound = generator.standard_normal(n) * (generator.random(n) < 0.002)
    return np.asarray(0.3 * sound / np.abs(sound).max(), np.float32)


def equalise(samples: Samples, rate_hz: int, generator: Generator) -> Samples:
    """Pass a clip through a random band limit, and half the time a gentle codec."""
    altered = degrade.limit_band(samples, rate_hz, int(generator.choice(BANDS_HZ[2:])))
    if generator.random() < 0.5:
        quality = float(generator.uniform(0.3, 0.9))
        altered = degrade.through_codec(altered, rate_hz, "vorbis", quality)
    return altered * np.float32(10 ** (generator.uniform(-20, 0) / 20))


def spoil(samples: Samples, rate_hz: int, noise: Samples, generator: Generator) -> Samples:
    """Give a clip one or two defects of random strength."""
    altered = samples
    for kind in generator.choice(6, size=int(generator.integers(1, 3)), replace=False):
        if kind == 0:
            altered = degrade.add_noise(altered, noise, float(generator.uniform(-5, 30)), generator)
        elif kind == 1:
            altered = degrade.limit_band(
                altered, rate_hz, int(generator.choice([1_700, 3_400, 5_500]))
            )
        elif kind == 2:
            altered = degrade.clip_peaks(altered, float(10 ** generator.uniform(-3, -0.4)))
        elif kind == 3:
            share = float(generator.uniform(0.02, 0.4))
            altered = degrade.drop_packets(altered, rate_hz, share, generator)
        elif kind == 4:
            altered = degrade.reverberate(
                altered, rate_hz, float(generator.uniform(0.2, 1.5)), generator
            )
        else:
            codec = str(generator.choice(["vorbis", "mu-law", "gsm"]))
            altered = degrade.through_codec(
                altered, rate_hz, codec, float(generator.uniform(0, 0.3))
            )
    white = generator.standard_normal(len(samples)).astype(np.float32)
    if generator.random() < 0.3:
        altered = degrade.add_noise(altered, white, float(generator.uniform(0, 40)), generator)
    return altered


def write(path: Path, samples: Samples, rate_hz: int) -> None:
    """Write a clip whole or not at all; one that is there is left."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    if rate_hz > 48_000:
        samples, rate_hz = resample(samples, rate_hz, 48_000), 48_000
    soundfile.write(draft, samples, rate_hz, format="FLAC", subtype="PCM_16")
    draft.rename(path)
