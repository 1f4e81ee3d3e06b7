"""A trained detector in other hands: what carries it out of the folder that it was trained in."""
