"""The explorer: edit facts with your hands. `session` is what it does, `panel` what it looks like."""
