"""A path, bytes or an array to checked mono samples: the only decoder and resampler.

Training, the command line, the server and batch jobs all read through here, so
none of them can hear a file differently. The content decides how a file is
decoded, never its name. What can be said of the samples is in `measure.py`.

Axes: T samples in time (always the last), C channels.
Scale: full scale is 1; integers are divided by their full range.
"""

import io
import operator
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike, NDArray

from voxpanel.errors import AudioError

MIN_RATE_HZ = 4_000  # below this no speech sound is whole
MAX_RATE_HZ = 384_000
MAX_DURATION_S = 4 * 3600.0  # of one clip; a header may promise anything
MAX_VALUES = 400_000_000  # samples x channels, 1.6 GB: 2.3 h of mono at 48 kHz
MAX_CHANNELS = 64  # more is an array whose time axis is not the last
MAX_PEAK = 2.0**31  # 32-bit integers kept as floats; beyond that the bytes are damaged

# Endings that a folder listing takes for audio; the last row needs the extra `media`.
# fmt: off
AUDIO_SUFFIXES = frozenset((
    ".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf",
    ".m4a", ".mp4", ".aac", ".webm", ".mka",
))
# fmt: on

_HEAD = 16  # bytes that tell one container from another
_BLOCK = 65_536  # samples decoded at once, so that a false length costs no memory
_CANCELLED = 1e-4  # -40 dB: far below the loss of 1 / C that unrelated channels have
_INTEGER_OFFSETS = {"int8": 0, "uint8": 128, "int16": 0, "int32": 0}  # the level of silence


@dataclass(frozen=True, eq=False)
class Audio:
    """A clip as it was decoded.

    samples: `[T]` mono at the clip's own rate, finite, at least one.
    n_channels: how many there were before they were mixed down.
    source: the path as given, `<bytes>` or `<array>`; messages begin with it.
    """

    samples: NDArray[np.float32]
    rate_hz: int
    n_channels: int
    source: str

    @property
    def duration_s(self) -> float:
        """The clip's length in seconds."""
        return len(self.samples) / self.rate_hz

    def at(self, rate_hz: int) -> NDArray[np.float32]:
        """Return the samples at another rate, or the samples themselves if it is theirs."""
        return resample(self.samples, self.rate_hz, rate_hz)


def read_audio(
    source: str | os.PathLike[str] | bytes, max_duration_s: float = MAX_DURATION_S
) -> Audio:
    """Decode a file, or the bytes of one, and mix it down to mono.

    WAV, FLAC, Ogg, Opus, MP3, AIFF, AU and their kin need nothing more; MP4
    (`.m4a`), WebM and AAC need the extra `media`. Where the data is cut or damaged
    half-way, what decodes before that point is used.

    Args:
        source: a path, or a file's whole content.
        max_duration_s: longer clips are refused, whatever the header promised.

    Raises:
        AudioError: there is no regular, readable file there, it is not audio that
            can be decoded, or its samples cannot be right; the message begins with
            the path as given.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), "<bytes>", max_duration_s)
    path = os.fsdecode(source)
    with _open(path) as file:
        return _read(file, path, max_duration_s)


def from_array(samples: ArrayLike, rate_hz: int, source: str = "<array>") -> Audio:
    """Check an array of samples and mix it down to mono.

    Args:
        samples: `[T]` or `[C, T]`; floats with full scale 1, or 8-, 16- or 32-bit
            integers, which are divided by their full range.
        rate_hz: the sampling rate; it is never guessed.
        source: what messages call the clip.

    Raises:
        AudioError: the array is empty, not numeric, not finite, or its axes are
            swapped; or the rate is missing or absurd.

    >>> from_array(np.array([[16384, 0], [0, 0]], dtype=np.int16), 16_000).samples.tolist()
    [0.25, 0.0]
    """
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError) as error:
        raise AudioError(f"{source}: not an array of numbers ({error})") from error
    channels = _to_float(array, source)
    if channels.ndim == 1:
        channels = channels[None]
    if channels.ndim != 2:
        raise AudioError(f"{source}: expected samples [T] or [C, T], got the shape {array.shape}")
    if not channels.size:
        raise AudioError(f"{source}: no samples in an array of the shape {array.shape}")
    if channels.shape[0] > min(MAX_CHANNELS, channels.shape[1]):
        raise AudioError(
            f"{source}: the shape {array.shape} means {channels.shape[0]} channels of"
            f" {channels.shape[1]} samples; time is the last axis, pass samples.T"
        )
    return _mono(channels, rate_hz, source)


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Bring `[T]` samples to another rate (soxr, quality HQ); the same array if none is needed.

    HQ keeps aliases below -140 dB and loses nothing up to 0.9 of the lower half rate.

    >>> len(resample(np.zeros(480, np.float32), 48_000, 16_000))
    160
    """
    if from_hz == to_hz:
        return samples
    resampled: NDArray[np.float32] = soxr.resample(samples, from_hz, to_hz, quality="HQ")
    return resampled


def mix_down(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix `[C, T]` down to `[T]` by the plain mean of the channels.

    Where the channels cancel (a second one wired with its sign swapped), the mean
    would be silence that nobody recorded: then one channel stands for all, the first
    that has at least half the power of the loudest.

    >>> mix_down(np.array([[0.5, -0.25], [-0.5, 0.25]], dtype=np.float32)).tolist()
    [0.5, -0.25]
    """
    if len(channels) == 1:
        return np.ascontiguousarray(channels[0])
    mean: NDArray[np.float32] = channels.mean(axis=0, dtype=np.float32)
    powers = np.array([np.dot(channel, channel) for channel in channels], np.float64)
    if np.dot(mean, mean) < _CANCELLED * powers.mean():
        return np.ascontiguousarray(channels[np.argmax(powers >= powers.max() / 2)])
    return mean


def _open(path: str) -> BinaryIO:
    """Open a regular file; a pipe is never opened, because reading it would wait for ever."""
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{path}: is a folder, not a file; name the files in it")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{path}: is a pipe or a device, not a file; save it to a file first")
        # Opened by number, because soundfile takes a name in .raw for headerless data.
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")
    except FileNotFoundError as error:
        if Path(path).is_symlink():
            raise AudioError(
                f"{path}: is a link to {Path(path).readlink()}, which is gone"
            ) from error
        raise AudioError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: cannot be opened ({reason})") from error


def _read(file: BinaryIO, source: str, max_duration_s: float) -> Audio:
    try:
        head = file.read(_HEAD)
        file.seek(0)
        if not head:
            raise AudioError(f"{source}: the file is empty (0 bytes); export it again")
        decode = _decode_media if _media_container(head) else _decode_soundfile
        channels, rate_hz = decode(file, source, max_duration_s)
    except OSError as error:
        raise AudioError(f"{source}: reading failed ({error.strerror or error})") from error
    return _mono(channels, rate_hz, source)


def _media_container(head: bytes) -> str | None:
    """Tell by its first bytes a container that soundfile cannot read, by FFmpeg's name for it.

    Naming the demuxer keeps FFmpeg from guessing: a text file could be taken for a
    playlist, which would open other files and addresses.

    >>> _media_container(bytes(4) + b"ftypM4A "), _media_container(b"RIFF")
    ('mov', None)
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    is_adts = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    return "aac" if is_adts else None


def _decode_soundfile(
    file: BinaryIO, source: str, max_duration_s: float
) -> tuple[NDArray[np.float32], int]:
    try:
        with soundfile.SoundFile(file) as decoder:
            limit = _most_samples(decoder.samplerate, decoder.channels, source, max_duration_s)
            blocks = _soundfile_blocks(decoder)
            return _gather(blocks, limit, decoder.samplerate, source), decoder.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(_undecodable(source, error.error_string)) from error


def _soundfile_blocks(decoder: Any) -> Iterator[NDArray[np.float32]]:
    while True:
        try:
            block = decoder.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:  # cut or damaged: what came before is used
            return
        if not len(block):
            return
        yield block.T


def _decode_media(
    file: BinaryIO, source: str, max_duration_s: float
) -> tuple[NDArray[np.float32], int]:
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"{source}: MP4, WebM and AAC need one more library; pip install 'voxpanel[media]'"
        ) from error
    container_name = _media_container(file.read(_HEAD))
    file.seek(0)
    try:
        with av.open(file, format=container_name) as container:
            if not container.streams.audio:
                raise AudioError(f"{source}: has no audio track; leave it out")
            stream = container.streams.audio[0]
            limit = _most_samples(stream.rate, stream.channels, source, max_duration_s)
            blocks = _media_blocks(container, stream)
            return _gather(blocks, limit, stream.rate, source), stream.rate
    except av.FFmpegError as error:
        raise AudioError(_undecodable(source, error.strerror or "")) from error


def _media_blocks(container: Any, stream: Any) -> Iterator[NDArray[np.float32]]:
    import av

    # Changes the sample format; rate and layout too, should a frame's differ from the stream's.
    to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    try:
        for frame in container.decode(stream):
            for block in to_float.resample(frame):
                yield np.asarray(block.to_ndarray(), np.float32)
    except av.FFmpegError:  # cut or damaged: what came before is used
        return


def _undecodable(source: str, reason: str) -> str:
    return (
        f"{source}: not audio that can be decoded ({reason.rstrip('. ')});"
        " export it again, as WAV or FLAC"
    )


def _most_samples(rate_hz: int, n_channels: int, source: str, max_duration_s: float) -> int:
    """Say how many samples in time may be decoded, before anything is."""
    _check_rate(rate_hz, source)
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise AudioError(f"{source}: {n_channels} channels; 1 to {MAX_CHANNELS} can be mixed down")
    return min(int(max_duration_s * rate_hz), MAX_VALUES // n_channels)


def _gather(
    blocks: Iterator[NDArray[np.float32]], limit: int, rate_hz: int, source: str
) -> NDArray[np.float32]:
    """Join blocks `[C, n]`, but never more than `limit` samples in time."""
    gathered = []
    n_samples = 0
    for block in blocks:
        n_samples += block.shape[1]
        if n_samples > limit:
            raise AudioError(
                f"{source}: longer than {limit / rate_hz:.0f} s, the most that is read at"
                f" {rate_hz} Hz and {len(block)} channels; cut it into clips"
            )
        gathered.append(block)
    if not gathered:
        raise AudioError(f"{source}: no samples after the header; re-export it or leave it out")
    return np.concatenate(gathered, axis=1)


def _to_float(array: NDArray[Any], source: str) -> NDArray[np.float32]:
    """Copy numbers to float32, integers divided by their full range."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is refused by its value
            return array.astype(np.float32)
    if array.dtype.name not in _INTEGER_OFFSETS:
        raise AudioError(
            f"{source}: samples of type {array.dtype} have no known full scale;"
            " pass floats, or integers of 8, 16 or 32 bits"
        )
    full_scale = 2.0 ** (8 * array.dtype.itemsize - 1)
    centred = array.astype(np.float64) - _INTEGER_OFFSETS[array.dtype.name]
    return (centred / full_scale).astype(np.float32)


def _mono(channels: NDArray[np.float32], rate_hz: int, source: str) -> Audio:
    """Check `[C, T]` and mix it down."""
    rate_hz = _check_rate(rate_hz, source)
    _check_values(channels, rate_hz, source)
    return Audio(mix_down(channels), rate_hz, len(channels), source)


def _check_rate(rate_hz: Any, source: str) -> int:
    try:
        whole = operator.index(rate_hz)
    except TypeError as error:
        raise AudioError(
            f"{source}: the sampling rate must be a whole number of Hz, got {rate_hz!r}"
        ) from error
    if not MIN_RATE_HZ <= whole <= MAX_RATE_HZ:
        raise AudioError(
            f"{source}: a sampling rate of {whole} Hz; expected {MIN_RATE_HZ} to {MAX_RATE_HZ}"
        )
    return whole


def _check_values(channels: NDArray[np.float32], rate_hz: int, source: str) -> None:
    bad = ~(np.abs(channels) <= MAX_PEAK)  # NaN compares as false
    if not bad.any():
        return
    first = int(np.argmax(bad.any(axis=0)))
    raise AudioError(
        f"{source}: {int(bad.sum())} of {bad.size} samples are NaN, infinite or absurdly large,"
        f" the first at {first / rate_hz:.3f} s; export it again"
    )
