"""MLServer: a runtime that answers with the probabilities of a pipeline, `parameters.uri`.

The scikit-learn runtime that comes with it takes one array, not columns of several kinds.
"""

import joblib
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Pipeline(MLModel):
    """A scikit-learn pipeline that takes a frame."""

    async def load(self) -> bool:
        """Read the pipeline."""
        self.model = joblib.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the probabilities of the rows."""
        frame = PandasCodec.decode_request(payload)
        shares = self.model.predict_proba(frame)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", shares)]
        )
