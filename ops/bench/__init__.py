"""`cuebook bench`: every measure beside the raw limit of its parts, taken in the same run, because only ratios mean something."""
