"""From a card to what runs here: what fits, what can be derived, and in which order."""
