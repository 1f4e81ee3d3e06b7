"""Fairness: are groups of people treated alike?

`audit` is the verb (``dfl audit``), `examine` computes, with the resamples and tests of `resample`; `findings` puts
it in sentences and `page` on a page.
"""
