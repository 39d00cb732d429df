"""Audio files that a scorer meets sooner or later, written into a folder by tests.

Three kinds: files that cannot become samples, files whose samples cannot be
scored, and files that look odd and are fine. `voice` is the sound in the last.
"""

import io
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import lfilter

RATE_HZ = 16_000


class Hostile(NamedTuple):
    """A file, and a pattern that the message about it must match."""

    path: Path
    says: str


def voice(seconds: float = 2.0, rate_hz: int = RATE_HZ, seed: int = 0) -> NDArray[np.float32]:
    """Make babble: four syllables a second, each a hiss and a vowel of three formants."""
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * rate_hz)
    syllable = rate_hz // 4
    spoken = [_syllable(syllable, rate_hz, rng) for _ in range(-(-n_samples // syllable))]
    samples = np.concatenate(spoken)[:n_samples]
    return (0.4 * samples / np.abs(samples).max()).astype(np.float32)


def _syllable(n_samples: int, rate_hz: int, rng: np.random.Generator) -> NDArray[np.float64]:
    phase = np.cumsum(np.linspace(rng.uniform(110, 160), rng.uniform(90, 130), n_samples)) / rate_hz
    vowel = np.diff(np.floor(phase), prepend=0.0)  # one pulse a period
    for low_hz, high_hz in ((300, 800), (900, 2200), (2400, 3200)):
        angle = 2 * np.pi * rng.uniform(low_hz, high_hz) / rate_hz
        radius = np.exp(-np.pi * 90 / rate_hz)
        vowel = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], vowel)
    vowel *= np.sin(np.pi * np.clip(np.linspace(-0.4, 1.0, n_samples), 0, 1))
    hiss = np.diff(rng.standard_normal(n_samples), prepend=0.0)
    hiss *= np.sin(np.pi * np.clip(np.linspace(0, 3.0, n_samples), 0, 1))
    return vowel / np.abs(vowel).max() + 0.05 * hiss


def wav_bytes(
    samples: NDArray[np.float32], rate_hz: int = RATE_HZ, subtype: str = "PCM_16"
) -> bytes:
    """Return `[T]` or `[C, T]` samples as the content of a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, samples.T, rate_hz, format="WAV", subtype=subtype)
    return file.getvalue()


def header(n_bytes: int, rate_hz: int = RATE_HZ, n_channels: int = 1) -> bytes:
    """Return a WAV header that promises `n_bytes` of 16-bit samples."""
    bytes_a_second = 2 * n_channels * rate_hz
    layout = struct.pack("<HHIIHH", 1, n_channels, rate_hz, bytes_a_second, 2 * n_channels, 16)
    size = min(n_bytes + 36, 0xFFFFFFFF)
    return (
        b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + struct.pack("<I", 16) + layout
        + b"data" + struct.pack("<I", n_bytes)
    )  # fmt: skip


def write_undecodable(folder: Path) -> list[Hostile]:
    """Write what can never become samples."""
    sound = voice()
    broken = sound.copy()
    broken[[8_000, 8_001, 9_000]] = [np.nan, np.inf, -np.inf]
    pcm = wav_bytes(sound)
    contents = {
        "empty.wav": (b"", "empty"),
        "header_only.wav": (header(0), "no samples after the header"),
        "promises_much.wav": (header(0xFFFFFFF0), "no samples after the header"),
        "cut_header.wav": (pcm[:20], "not audio that can be decoded"),
        "text.wav": (b"This is a transcript, not a recording.\n" * 40, "not audio"),
        "playlist.m4a": (b"#EXTM3U\n#EXTINF:10,\nhttp://localhost:1/a.ts\n", "not audio"),
        "zeros.wav": (bytes(4_096), "not audio"),
        "nan.wav": (wav_bytes(broken, subtype="FLOAT"), r"3 of 32000 samples .* at 0\.500 s"),
        "slow.wav": (wav_bytes(sound, 2_000), "2000 Hz"),
        "fast.wav": (wav_bytes(sound, 500_000), "500000 Hz"),
        "crowd.wav": (wav_bytes(np.zeros((65, 100), np.float32)), "65 channels"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.wav").mkdir()
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    found = [Hostile(folder / name, says) for name, (_, says) in contents.items()]
    found += [
        Hostile(folder / "folder.wav", "folder"),
        Hostile(folder / "dangling.wav", r"link to nowhere\.wav"),
        Hostile(folder / "missing.wav", "no such file"),
    ]
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.wav")
        found.append(Hostile(folder / "pipe.wav", "pipe"))
    return found


def write_unscorable(folder: Path) -> list[Hostile]:
    """Write what decodes, but must not be given a score."""
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(len(time_s))
    sounds = {
        "10_ms.wav": (voice()[4_000:4_160], "too short"),
        "50_ms.wav": (voice()[4_000:4_800], "too short"),
        "silence.wav": (0 * time_s, "silent"),
        "dc.wav": (0 * time_s + 0.25, "silent"),
        "dither.wav": (rng.triangular(-1, 0, 1, len(time_s)) / 32_768, "silent"),
        "noise.wav": (0.1 * noise, "no speech"),
        "tone.wav": (0.3 * np.sin(2 * np.pi * 440 * time_s), "no speech"),
    }
    for name, (samples, _) in sounds.items():
        (folder / name).write_bytes(wav_bytes(np.asarray(samples, np.float32)))
    return [Hostile(folder / name, says) for name, (_, says) in sounds.items()]


def write_odd(folder: Path) -> list[Path]:
    """Write what looks odd and sounds like `voice()` all the same, give or take its coding."""
    sound = voice()
    pcm = wav_bytes(sound)
    contents = {
        "UPPER.WAV": pcm,
        "ünïcødé 日本語 🎧.wav": pcm,
        'comma, "quote".wav': pcm,
        "headerless.raw": pcm,
        "streamed.wav": header(0x7FFFF000) + pcm[44:],  # as espeak-ng --stdout writes it
        "eight_channels.wav": wav_bytes(np.tile(sound, (8, 1))),
        "sign_swapped.wav": wav_bytes(np.stack([sound, -sound])),
        "loud_float.wav": wav_bytes(4 * sound, subtype="FLOAT"),
        "double.wav": wav_bytes(sound, subtype="DOUBLE"),
        "24_bits.wav": wav_bytes(sound, subtype="PCM_24"),
        "8_bits.wav": wav_bytes(sound, subtype="PCM_U8"),
        "mu_law.wav": wav_bytes(sound, subtype="ULAW"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    soundfile.write(folder / "is_flac.wav", sound, RATE_HZ, format="FLAC")
    soundfile.write(folder / "is_mp3.wav", sound, RATE_HZ, format="MP3")
    soundfile.write(folder / "talk.ogg", sound, RATE_HZ)
    return [*(folder / name for name in contents), *map(folder.joinpath, _CODED)]


_CODED = ("is_flac.wav", "is_mp3.wav", "talk.ogg")
