"""From audio to numbers: speech encoders, the full band, and how frames are pooled."""
