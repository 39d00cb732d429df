"""What the model card of `base` says besides its numbers."""

PREFACE = """\
The model that comes with voxpanel: it predicts how people would rate the quality of speech,
on a scale of 1-5, and names the synthesizer it hears. Made by `scripts/base/make.py`, in three
stages over a frozen encoder, from the data below.

The encoder's weights are those of Distill-MOS (Stahl and Gamper, 2025; Microsoft, MIT licence,
kept beside this file as `LICENSE-Distill-MOS`), rounded to half precision. Fusion, mixture of
experts and heads are trained here. The weights made here are under the MIT licence of voxpanel.

Tests it can answer for (`--test`): `stahl-codec`, as the listeners of that test, and `teacher`, as
Distill-MOS itself; without one it answers in between."""

TRAINING = {
    "human ratings": "Neural Codec MUSHRA rating dataset (Stahl et al., IEEE Access 2024), CC BY"
    " 4.0; its speech from VCTK (CC BY 4.0) and TSP (BSD). 0-100 mapped linearly to 1-5. Two"
    " listeners who failed the test's screening are left out",
    "teacher labels": "Distill-MOS 0.9.1's own answers on the unlabelled clips and on degraded"
    " copies of them (test `teacher`): not human ratings",
    "unlabelled clips": "public demo pages: CosyVoice (MIT), Spark-TTS (Apache-2.0), and F5-TTS,"
    " FireRedTTS, HiFi-GAN, IndexTTS and VITS, whose pages state no licence for the clips. They"
    " taught the names of synthesizers, and carry the teacher's labels; none is distributed",
    "non-speech": "ESC-10 environmental recordings (CC BY 3.0, K. J. Piczak), and noise, chords,"
    " sweeps and clicks made by the script",
}

LIMITS = """\
- The human ratings are of eight neural codecs in English. On other kinds of speech (a new language,
  text-to-speech, enhancement) the order of systems carries further than the absolute number.
- Where ratings of your own are at hand, train on them: `voxpanel train`.
- Synthesizer names are those of the demo clips; a clip of any other synthesizer gets the name of
  the one it resembles.
- The score is of the whole clip: a defect in a long recording is averaged with the rest."""
