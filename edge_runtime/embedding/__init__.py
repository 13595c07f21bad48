"""Sentence embedding in a child process: ONNX Runtime and the model's own tokenizer."""
