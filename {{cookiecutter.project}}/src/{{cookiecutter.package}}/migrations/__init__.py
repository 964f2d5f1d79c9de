"""The store's tables, step by step; `events migrate` runs what is missing."""
