"""Activations on disk: ``harvesting`` streams texts through a model, ``store`` reads what it wrote."""
