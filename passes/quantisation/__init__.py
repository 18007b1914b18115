"""Post-training quantisation: fp32 ONNX and calibration data to ONNX with QuantizeLinear and DequantizeLinear."""
