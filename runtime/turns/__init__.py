"""One turn from its first line to its outcome: journal, commit, waits, timers, retries, cancellation (S14 to S26)."""
