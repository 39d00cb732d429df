"""Training: a manifest in, a model folder out (`run.py`), by stages (`loop.py`)."""
