"""The training loop: recipe to run folder."""
