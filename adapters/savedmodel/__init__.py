"""A local model server for development that speaks TensorFlow Serving's REST and gRPC contract.

TensorFlow runs the models and the official stubs carry gRPC. Rules of this package: nothing here
imports `gateway`, so that an error in a codec can't be made at both ends at once; TensorFlow is
imported by `model` and `grpc_service` alone, after the sockets are open, because that import takes
seconds.

Rooms: `cli` (arguments), `server` (wiring, signals), `versions` (pure policy, disk scan), `manager`
(load, hold, unload), `model` (TensorFlow), `signature` (what the rooms know of a model), `rest` and
`routes` (HTTP), `json_reader`, `json_tensors`, `json_writer` (JSON and arrays), `grpc_service`,
`proto_tensors`, `status`.
"""
