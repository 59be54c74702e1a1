"""Fine-tuning: the last layers of the base train on with the head."""
