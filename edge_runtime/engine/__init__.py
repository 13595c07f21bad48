"""Tokens: the engine child process around llama.cpp, and the messages it speaks."""
