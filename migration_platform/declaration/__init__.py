"""What a user wants: frozen values that check themselves; no connection is needed."""
