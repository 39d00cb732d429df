"""Make the clips in `examples/`: three synthesizers, two sentences, clean and degraded.

Needs the Debian packages espeak-ng, flite, festival and festvox-us-slt-hts. The
same versions of them give the same clips, sample by sample: the noise is seeded
by the clip's name. Sentences are read from `texts.csv`; samples are `[T]`.

    python scripts/make_examples.py [--out FOLDER]
"""

import argparse
import csv
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy import signal

EXAMPLES = Path(__file__).parent.parent / "examples"
LEVEL_DB = -26.0  # root mean square of a whole clip, relative to full scale
CLIP_DB = 3.0  # relative to the root mean square: what exceeds it is cut off
SNR_DB = 0.0
BAND_HZ = 3400.0  # where the telephone band ends
SHORTEST_S = 1.0  # flite and festival can fail with exit status 0 and leave less than this

# The rate a clip is delivered at: the engine's own, or another it may meet on its way.
RATES_HZ = {
    ("espeak-ng", "train", "clean"): 22050,
    ("espeak-ng", "train", "degraded"): 22050,
    ("espeak-ng", "cups", "clean"): 48000,
    ("espeak-ng", "cups", "degraded"): 16000,
    ("flite", "train", "clean"): 16000,
    ("flite", "train", "degraded"): 48000,
    ("flite", "cups", "clean"): 16000,
    ("flite", "cups", "degraded"): 16000,
    ("festival", "train", "clean"): 32000,
    ("festival", "train", "degraded"): 32000,
    ("festival", "cups", "clean"): 48000,
    ("festival", "cups", "degraded"): 22050,
}


def main() -> None:
    """Write every clip and `manifest.csv`."""
    parser = argparse.ArgumentParser(description="Make the clips in examples/.")
    parser.add_argument("--out", type=Path, default=EXAMPLES, metavar="FOLDER")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    with (EXAMPLES / "texts.csv").open(newline="", encoding="utf-8") as file:
        texts = {row["sentence"]: row["text"] for row in csv.DictReader(file)}
    rows = [make_clip(folder, *clip, texts[clip[1]], rate) for clip, rate in RATES_HZ.items()]
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def make_clip(
    folder: Path, engine: str, sentence: str, condition: str, text: str, rate_hz: int
) -> dict[str, str]:
    """Write one clip and return its row of the manifest."""
    path = folder / f"{engine}_{sentence}_{condition}_{rate_hz / 1000:g}k.flac"
    samples, native_hz = synthesize(engine, text)
    if condition == "degraded":
        samples = degrade(samples, native_hz, seed=zlib.crc32(path.name.encode()))
    delivered = at_level(soxr.resample(samples, native_hz, rate_hz, quality="VHQ"), LEVEL_DB)
    soundfile.write(path, delivered, rate_hz, subtype="PCM_16")
    return {
        "path": path.name,
        "system": engine if condition == "clean" else f"{engine}-degraded",
        "synthesizer": engine,
        "sentence": sentence,
        "text": text,
    }


def synthesize(engine: str, text: str) -> tuple[NDArray[np.float64], int]:
    """Speak a text; return its samples and the engine's own rate in Hz.

    Raises:
        RuntimeError: the engine left no speech behind.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch) / "speech.wav"
        script = Path(scratch) / "text.txt"
        script.write_text(text, encoding="utf-8")
        subprocess.run(command(engine, script, wav), check=True)
        samples, rate_hz = soundfile.read(wav)
    if len(samples) < SHORTEST_S * rate_hz:
        raise RuntimeError(
            f"{engine}: {len(samples)} samples for {text!r}; is its voice installed?"
        )
    return samples, rate_hz


def command(engine: str, script: Path, wav: Path) -> list[str]:
    """Return the command that makes `engine` read the file `script` into `wav`."""
    match engine:
        case "espeak-ng":
            return ["espeak-ng", "-v", "en-us", "-f", str(script), "-w", str(wav)]
        case "flite":
            return ["flite", "-voice", "rms", "-f", str(script), "-o", str(wav)]
        case "festival":
            voice = "(voice_cmu_us_slt_arctic_hts)"
            return ["text2wave", "-eval", voice, "-o", str(wav), str(script)]
        case _:
            raise ValueError(f"{engine!r}: not an engine here; use espeak-ng, flite or festival")


def degrade(samples: NDArray[np.float64], rate_hz: int, seed: int) -> NDArray[np.float64]:
    """Clip the peaks, keep the telephone band, and add noise within it."""
    ceiling = rms(samples) * 10 ** (CLIP_DB / 20)
    noise = np.random.default_rng(seed).standard_normal(len(samples))
    low_pass = signal.butter(8, BAND_HZ, fs=rate_hz, output="sos")
    speech = signal.sosfiltfilt(low_pass, np.clip(samples, -ceiling, ceiling))
    hiss = signal.sosfiltfilt(low_pass, noise)
    return np.asarray(speech + hiss * (rms(speech) / rms(hiss) * 10 ** (-SNR_DB / 20)))


def at_level(samples: NDArray[np.float64], level_db: float) -> NDArray[np.float64]:
    """Scale samples so that their root mean square lies `level_db` below full scale."""
    return samples * (10 ** (level_db / 20) / rms(samples))


def rms(samples: NDArray[np.float64]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(samples))))


if __name__ == "__main__":
    main()
