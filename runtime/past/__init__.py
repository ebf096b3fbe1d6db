"""What the log says afterwards: filters, the merged order, states of the past, causes, comparisons. Only reads."""
