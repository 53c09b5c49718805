"""Networks: classifiers, maskers and the import of their weights."""
