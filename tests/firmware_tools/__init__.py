"""Tests: firmware_tools."""
