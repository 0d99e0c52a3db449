"""Warm-up: requests that TensorFlow Serving answers before it takes others.

They lie in `assets.extra` of a SavedModel, where the server looks for them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

FOLDER, FILE = "assets.extra", "tf_serving_warmup_requests"


def write(
    saved_model: Path, name: str, requests: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes warm-up requests.

    Args:
        saved_model: Folder of the SavedModel.
        name: Of the model that is served.
        requests: Inputs by name, for each signature.
    """
    (saved_model / FOLDER).mkdir()
    with tf.io.TFRecordWriter(str(saved_model / FOLDER / FILE)) as file:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for key, values in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            file.write(log.SerializeToString())
