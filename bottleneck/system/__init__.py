"""Files, objects in the cloud, memory, processes and progress."""
