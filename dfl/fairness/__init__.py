"""Fairness: are groups of people treated alike?

`audit` is the verb (``dfl audit``), `examine` computes, with the resamples and tests of `resample`, `page` shows.
"""
