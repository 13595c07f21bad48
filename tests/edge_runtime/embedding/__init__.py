"""Tests: embedding."""
