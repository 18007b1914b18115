"""From an ONNX file or ModelProto to a Graph: load safely, normalise with onnx-ir, translate node by node."""
