"""A local model server for development that speaks TensorFlow Serving's REST and gRPC contract.

TensorFlow runs the models and the official stubs carry gRPC. Rules of this package: nothing here
imports `gateway`, so that an error in a codec can't be made at both ends at once; TensorFlow is
imported by `model`, `grpc_service`, `proto_calls`, `proto_tensors` and `warmup` alone, after the
sockets are open, since it takes seconds.

Rooms: `cli` (arguments), `server` (wiring, signals), `model_config` (TensorFlow Serving's file of
models), `labels` and `versions` (pure policy, disk scan), `watch` (one model: load, hold, unload),
`manager` (all models), `workers` (threads), `model` and `warmup` (TensorFlow), `signature` (what
the rooms know of a model), `inference` (Classify, Regress, MultiInference), `rest` and `routes`
(HTTP), `json_reader`, `json_tensors`, `json_faults`, `base64_strings`, `examples`, `json_writer`
(JSON and arrays), `grpc_front` (the port), `grpc_service` (the methods), `proto_calls`,
`proto_tensors` (messages), `status`.
"""
