"""What a run will take: estimates, dry runs and recommendations."""
