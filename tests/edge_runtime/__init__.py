"""Tests: edge_runtime."""
