"""Offline tools: fetch, build, tune and provision. Nothing imports this package."""
