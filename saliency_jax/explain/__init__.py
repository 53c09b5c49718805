"""Explanations of a user's own pictures, at the pictures' own size."""
