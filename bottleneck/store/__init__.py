"""Features on disk. No TensorFlow in here."""
