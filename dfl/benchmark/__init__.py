"""The benchmark: one detector trained on each domain and tested on all, as a table and a heat map.

`sweep` trains and tests (``dfl matrix``) what `sweep_config` reads, `matrix` writes the tables and the page.
"""
