"""The benchmark: detectors trained on what is written in a spec and tested on many domains, from files of predictions.

`spec` is read, `work` does the `run`s, `report` makes tables and page; `sweeps` is another way to write a spec.
"""
