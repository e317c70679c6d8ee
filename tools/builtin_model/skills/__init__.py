"""One file per skill; each offers `train(rng) -> Document` and, where it is scored, `heldout(rng) -> Question`."""
