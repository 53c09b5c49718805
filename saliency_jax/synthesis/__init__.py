"""Images that are made to ask a classifier something."""
