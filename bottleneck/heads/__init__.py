"""The new part: scikit-learn classifiers over cached rows that give themselves back as stock Keras layers."""
