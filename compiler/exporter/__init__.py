"""Writing ONNX: the model as it was read, with other weights."""
