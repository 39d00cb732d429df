"""The paper's network and what surrounds it: fusion, mixture, losses, checkpoints."""
