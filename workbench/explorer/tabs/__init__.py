"""The tabs below the answers, one module each."""
