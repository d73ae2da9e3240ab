"""Export of fitted fields: ONNX, GLSL, HTML pages, plain sine networks, and the layout of tiny-cuda-nn."""
