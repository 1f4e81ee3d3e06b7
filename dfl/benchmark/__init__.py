"""The benchmark: one detector trained on each domain and tested on all, as a table and a heat map.

`sweep` trains and tests what a sweep config asks for (``dfl matrix``), `matrix` writes the tables and the page.
"""
