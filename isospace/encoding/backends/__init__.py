"""What runs a model: torch, OpenVINO, ONNX Runtime."""
