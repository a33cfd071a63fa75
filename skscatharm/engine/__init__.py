"""The engines: everything that computes with arrays of fields."""
