"""The transform: what is computed, and no word of how."""
