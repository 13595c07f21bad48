"""One file per question that a benchmark answers; each prints its machine and a JSON result."""
