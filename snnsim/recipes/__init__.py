"""Recipes: one TOML file a published experiment."""
