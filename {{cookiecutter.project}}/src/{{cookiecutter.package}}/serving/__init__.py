"""The inference service: one loaded model behind HTTP, its page and its numbers."""
