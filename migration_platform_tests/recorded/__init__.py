"""What an earlier version recorded: names, fingerprints, and a run that it left half done."""
