"""Whether a detector, after its real initialisation, holds the weights of its files; if not, why."""
