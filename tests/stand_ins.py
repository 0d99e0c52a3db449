"""Stand-ins for TensorFlow Serving, which is not on PyPI: what it says on the wire.

They answer the requests of its REST and gRPC protocols with a loaded SavedModel.
"""

import contextlib
import http.server
import json
import re
import threading
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


@contextlib.contextmanager
def rest(name, signatures):
    """The port of a server of a model by REST: `:predict`, columnar."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not re.fullmatch(rf"/v1/models/{name}(/versions/1)?:predict", self.path):
                self.answer(404, {"error": "Servable not found for request"})
                return
            function = signatures[body.get("signature_name", "serving_default")]
            specs = function.structured_input_signature[1]
            outputs = function(
                **{
                    key: tf.constant(values, specs[key].dtype)
                    for key, values in body["inputs"].items()
                }
            )
            values = {key: value.numpy().tolist() for key, value in outputs.items()}
            self.answer(200, {"outputs": values})

        def answer(self, status, content):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def remote(name, signatures):
    """The port of a server of a model by gRPC: `PredictionService.Predict`."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802  of the protocol
            if request.model_spec.name != name:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
            function = signatures[request.model_spec.signature_name]
            answer = predict_pb2.PredictResponse(model_spec=request.model_spec)
            for key, values in function(**inputs(request)).items():
                proto = tf.make_tensor_proto(np.asarray(values))
                answer.outputs[key].CopyFrom(proto)
            return answer

    server = grpc.server(
        futures.ThreadPoolExecutor(1),
        options=[("grpc.max_receive_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Service(), server
    )
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def inputs(request):
    """The tensors of a request, by name."""
    return {
        key: tf.constant(tf.make_ndarray(values))
        for key, values in request.inputs.items()
    }
