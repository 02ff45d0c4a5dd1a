"""What belongs to a run: worker processes, tracking, resuming, control, events."""
