"""Fitted fields for other programs: ONNX, GLSL, a page for a browser, plain sine networks, tiny-cuda-nn's layout."""
