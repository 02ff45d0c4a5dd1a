"""Dates and times as patterns of Java's DateTimeFormatter write them."""
