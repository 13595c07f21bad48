"""What a model is and where its bytes are: catalogue and store. Knows no network."""
