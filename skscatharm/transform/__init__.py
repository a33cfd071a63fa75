"""The transform: the definition of the coefficients, independent of engines."""
