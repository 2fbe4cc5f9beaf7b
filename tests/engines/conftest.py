from tests.weights.published import published_onnx, published_weights

__all__ = ["published_onnx", "published_weights"]
