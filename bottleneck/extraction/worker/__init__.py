"""The worker process that runs the base, and the channel to it."""
