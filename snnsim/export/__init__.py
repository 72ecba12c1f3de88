"""Exports, one file a target."""
