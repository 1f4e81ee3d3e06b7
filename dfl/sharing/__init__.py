"""A trained detector elsewhere: as a folder, a graph for other programs, a repository of the hub, a server."""
