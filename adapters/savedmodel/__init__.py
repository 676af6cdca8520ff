"""A local model server for development that speaks TensorFlow Serving's REST and gRPC contract.

TensorFlow runs the models and the official stubs carry gRPC. Rules of this package: nothing here
imports `gateway`, so that an error in a codec can't be made at both ends at once; TensorFlow is
imported by `model`, `grpc_service` and `proto_tensors` alone, after the sockets are open, since
it takes seconds.

Rooms: `cli` (arguments), `server` (wiring, signals), `versions` (pure policy, disk scan),
`manager` (load, hold, unload), `workers` (threads), `model` (TensorFlow), `signature` (what the
rooms know of a model), `rest` and `routes` (HTTP), `json_reader`, `json_tensors`, `json_writer`
(JSON and arrays), `grpc_front` (the port), `grpc_service` (the methods), `proto_tensors`,
`status`.
"""
