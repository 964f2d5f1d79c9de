"""From a table to a served model: snapshot, contract, training, bundle and inference service."""

import os

# onnxruntime looks at this when it is imported. It would tell its maker of every model it loads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
