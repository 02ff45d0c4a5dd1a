"""How fast and how patiently: rate budgets and retries."""
