"""A deployed mistake: the parser refuses this file."""
def serve(:
