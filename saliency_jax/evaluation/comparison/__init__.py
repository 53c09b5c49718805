"""Many methods, maskers and baselines through the same metrics, on the same images.

`compare.py` conducts; `contestants.py` says what stands in the rows, `catalogue.py`
what stands in the columns; each `..._pass.py` takes one contestant over the images, and
what it measured is kept by `saved.py` before the next begins.
"""
