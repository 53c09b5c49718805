"""One HTML file of a whole comparison, which opens from disk without a network.

`page.py` puts together what the other modules draw and the three files beside them.
"""
