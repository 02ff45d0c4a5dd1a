"""A run's report as files, for who signs off and who works through what did not arrive."""
