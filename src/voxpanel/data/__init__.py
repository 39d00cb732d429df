"""From manifests to batches: what a model is trained on and in which order."""
