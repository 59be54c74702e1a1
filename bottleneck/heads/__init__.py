"""Classifiers over cached rows, which become stock Keras layers."""
