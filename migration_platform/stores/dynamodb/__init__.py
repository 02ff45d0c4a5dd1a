"""A DynamoDB table as a target: rows become items, and items become rows again."""
