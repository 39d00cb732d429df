"""Making more speech out of speech: degradations here, synthesizers to come beside them."""
