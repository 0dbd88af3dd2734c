"""From sources to ordered, packed rows: mixtures, batches, replay, held-out splits."""
