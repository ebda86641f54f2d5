"""Subcommands of `interp`: each module registers one and imports nothing heavy until it runs."""
