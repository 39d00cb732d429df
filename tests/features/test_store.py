"""Features on disk: computed once, and never another clip's or another encoder's."""

import os
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor, nn

from voxpanel.errors import AudioError
from voxpanel.features import store as room
from voxpanel.features.backbone import LayerFrames
from voxpanel.features.extract import Features, concatenate, encode, read_clip
from voxpanel.features.melbank import Melbank
from voxpanel.features.store import FeatureStore, default_store


class CountingEncoder(Melbank):
    """Mel bands times a gain, the only weight; counts how often it encodes."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(8)
        self.gain = nn.Parameter(torch.tensor(gain))
        self.n_encoded = 0

    def forward(self, samples: Tensor, n_samples: Tensor) -> LayerFrames:
        self.n_encoded += len(samples)
        frames, n_frames = super().forward(samples, n_samples)
        return LayerFrames(frames * self.gain, n_frames)


@pytest.fixture
def encoder():
    return CountingEncoder()


@pytest.fixture
def store(encoder, tmp_path):
    return FeatureStore(encoder, tmp_path / "features")


@pytest.fixture
def clip(speech, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, speech(1.0), 16_000)
    return path


def same(first: Features, second: Features) -> bool:
    pairs = zip([*first.moments, first.fullband], [*second.moments, second.fullband], strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_clip_is_encoded_once_and_then_read_from_disk(store, encoder, clip):
    first, second = store.one(clip), store.one(clip)
    assert encoder.n_encoded == 1
    assert same(first, second)
    assert files_in(store.folder) == [store.place(clip)]


def test_what_is_stored_is_what_the_encoder_gives(store, encoder, clip):
    with torch.no_grad():
        expected = encode(encoder, [read_clip(clip, encoder)])
    assert same(store.one(clip), expected)
    assert same(store.one(clip), expected)


def test_a_second_store_finds_what_the_first_one_wrote(store, clip, tmp_path):
    first = store.one(clip)
    later = CountingEncoder()
    assert same(FeatureStore(later, tmp_path / "features").one(clip), first)
    assert later.n_encoded == 0


def test_a_changed_file_is_encoded_again(store, encoder, clip, speech):
    first = store.one(clip)
    soundfile.write(clip, speech(1.5), 16_000)
    assert not same(store.one(clip), first)
    assert encoder.n_encoded == 2


def test_a_file_of_another_time_is_encoded_again(store, encoder, clip):
    store.one(clip)
    os.utime(clip, ns=(0, 1))
    store.one(clip)
    assert encoder.n_encoded == 2


def test_two_clips_of_one_name_are_two_clips(store, speech, tmp_path):
    paths = [tmp_path / folder / "clip.wav" for folder in ("one", "other")]
    for path, samples in zip(paths, (speech(1.0), speech(2.0)[16_000:]), strict=True):
        path.parent.mkdir()
        soundfile.write(path, samples, 16_000)
        os.utime(path, ns=(0, 1))  # of one size and one time, too
    assert not same(store.one(paths[0]), store.one(paths[1]))


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[:-40], lambda whole: whole[:20], lambda _: b"", lambda _: b"x" * 1000],
    ids=["cut", "cut in its header", "empty", "something else"],
)
def test_a_damaged_file_is_made_again(store, encoder, clip, damage):
    first = store.one(clip)
    place = store.place(clip)
    place.write_bytes(damage(place.read_bytes()))
    assert same(store.one(clip), first)
    assert encoder.n_encoded == 2
    store.one(clip)
    assert encoder.n_encoded == 2


def test_another_encoders_features_lie_in_another_folder(store, clip, tmp_path):
    louder = FeatureStore(CountingEncoder(gain=2.0), tmp_path / "features")
    assert louder.folder != store.folder
    assert not same(louder.one(clip), store.one(clip))


def test_nothing_half_written_is_ever_found(store, encoder, clip, monkeypatch):
    def die(tensors, path):
        Path(path).write_bytes(tensors["mean"].numpy().tobytes())
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(room, "save_file", die)
        with pytest.raises(KeyboardInterrupt):
            store.one(clip)
    assert not store.place(clip).exists()
    whole = store.one(clip)
    assert encoder.n_encoded == 2
    assert same(store.one(clip), whole)
    assert files_in(store.folder) == [store.place(clip)]  # the draft was written over


@pytest.mark.parametrize("n_calls", [1, 2], ids=["computed", "read from disk"])
def test_a_head_can_be_trained_on_what_the_store_returns(store, clip, n_calls):
    for _ in range(n_calls):
        features = concatenate([store.one(clip)])
    weights = torch.ones(1, requires_grad=True)
    torch.einsum("bld,l->bd", features.moments.mean, weights).square().sum().backward()
    assert weights.grad.isfinite().all()
    assert weights.grad.abs() > 0


def test_a_missing_file_is_an_audio_error(store, tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav: No such file"):
        store.one(tmp_path / "gone.wav")


def test_a_clip_with_nothing_to_rate_is_refused_and_not_stored(store, tmp_path):
    path = tmp_path / "silent.wav"
    soundfile.write(path, torch.zeros(16_000).numpy(), 16_000)
    with pytest.raises(AudioError, match=r"silent\.wav: silent"):
        store.one(path)
    assert files_in(tmp_path / "features") == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"VOXPANEL_CACHE": "/a"}, "/a/features"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/voxpanel/features"),
        ({"VOXPANEL_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/features"),
        ({"HOME": "/c"}, "/c/.cache/voxpanel/features"),
    ],
)
def test_the_folder_of_the_store_comes_from_the_environment(variables, expected, monkeypatch):
    for name in ("VOXPANEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_store() == Path(expected)
