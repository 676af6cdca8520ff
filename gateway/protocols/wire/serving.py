"""TensorFlow Serving's own messages and services.

What belongs here: a table in the language of ``build.py`` with the files of the package
``tensorflow.serving``, under their official paths. Rules: numbers and names follow
``tensorflow-serving-api`` 2.21 to the letter; a file is complete or is not here at all.

Not here: ``SessionService`` and the request log (``logging.proto``, ``prediction_log.proto``),
which no client of a served model calls.
"""

from __future__ import annotations

TABLE = """
file tensorflow_serving/apis/model.proto tensorflow.serving
import google/protobuf/wrappers.proto

message ModelSpec
  1 name string
  2 version google.protobuf.Int64Value in version_choice
  4 version_label string in version_choice
  3 signature_name string


file tensorflow_serving/apis/predict.proto tensorflow.serving
import tensorflow/core/framework/tensor.proto
import tensorflow_serving/apis/model.proto

message PredictRequest
  1 model_spec ModelSpec
  2 inputs map<string,TensorProto>
  3 output_filter string[]
  5 predict_streamed_options PredictStreamedOptions
  6 client_id bytes optional
  7 request_options RequestOptions optional
message PredictRequest.RequestOptions
  1 client_id bytes optional
  2 deterministic_mode DeterministicMode optional
  3 return_additional_arrays_from_prefill bool optional
  4 return_stoptokens int64[]
  9 return_all_stoptokens bool optional
  6 max_cache_length int64 optional
  13 handshake Handshake optional
message PredictRequest.RequestOptions.Handshake
  1 estimated_payload_bytes int64
enum PredictRequest.RequestOptions.DeterministicMode
  DETERMINISTIC_MODE_UNSPECIFIED=0 FIXED_DECODER_SLOT=1
message PredictStreamedOptions
  1 request_state RequestState
  2 split_dimensions map<string,int32>
  3 return_single_response bool
enum PredictStreamedOptions.RequestState
  NONE=0 SPLIT=1 END_SPLIT=2 CANCEL=3
message PredictResponse
  2 model_spec ModelSpec
  1 outputs map<string,TensorProto>


file tensorflow_serving/apis/input.proto tensorflow.serving
import tensorflow/core/example/example.proto

message ExampleList
  1 examples Example[]
message ExampleListWithContext
  1 examples Example[]
  2 context Example
message Input
  1 example_list ExampleList in kind
  2 example_list_with_context ExampleListWithContext in kind


file tensorflow_serving/apis/classification.proto tensorflow.serving
import tensorflow_serving/apis/input.proto
import tensorflow_serving/apis/model.proto

message Class
  1 label string
  2 score float
message Classifications
  1 classes Class[]
message ClassificationResult
  1 classifications Classifications[]
message ClassificationRequest
  1 model_spec ModelSpec
  2 input Input
message ClassificationResponse
  2 model_spec ModelSpec
  1 result ClassificationResult


file tensorflow_serving/apis/regression.proto tensorflow.serving
import tensorflow_serving/apis/input.proto
import tensorflow_serving/apis/model.proto

message Regression
  1 value float
message RegressionResult
  1 regressions Regression[]
message RegressionRequest
  1 model_spec ModelSpec
  2 input Input
message RegressionResponse
  2 model_spec ModelSpec
  1 result RegressionResult


file tensorflow_serving/apis/inference.proto tensorflow.serving
import tensorflow_serving/apis/classification.proto
import tensorflow_serving/apis/input.proto
import tensorflow_serving/apis/model.proto
import tensorflow_serving/apis/regression.proto

message InferenceTask
  1 model_spec ModelSpec
  2 method_name string
message InferenceResult
  1 model_spec ModelSpec
  2 classification_result ClassificationResult in result
  3 regression_result RegressionResult in result
message MultiInferenceRequest
  1 tasks InferenceTask[]
  2 input Input
message MultiInferenceResponse
  1 results InferenceResult[]


file tensorflow_serving/apis/get_model_metadata.proto tensorflow.serving
import google/protobuf/any.proto
import tensorflow/core/protobuf/meta_graph.proto
import tensorflow_serving/apis/model.proto

message SignatureDefMap
  1 signature_def map<string,SignatureDef>
message GetModelMetadataRequest
  1 model_spec ModelSpec
  2 metadata_field string[]
message GetModelMetadataResponse
  1 model_spec ModelSpec
  2 metadata map<string,google.protobuf.Any>


file tensorflow_serving/apis/prediction_service.proto tensorflow.serving
import tensorflow_serving/apis/classification.proto
import tensorflow_serving/apis/get_model_metadata.proto
import tensorflow_serving/apis/inference.proto
import tensorflow_serving/apis/predict.proto
import tensorflow_serving/apis/regression.proto

service PredictionService
  Classify ClassificationRequest ClassificationResponse
  Regress RegressionRequest RegressionResponse
  Predict PredictRequest PredictResponse
  MultiInference MultiInferenceRequest MultiInferenceResponse
  GetModelMetadata GetModelMetadataRequest GetModelMetadataResponse


file tensorflow_serving/apis/status.proto tensorflow.serving
import tensorflow/core/protobuf/error_codes.proto

message StatusProto
  1 error_code error.Code json error_code
  2 error_message string json error_message


file tensorflow_serving/apis/get_model_status.proto tensorflow.serving
import tensorflow_serving/apis/model.proto
import tensorflow_serving/apis/status.proto

message GetModelStatusRequest
  1 model_spec ModelSpec
message ModelVersionStatus
  1 version int64
  2 state State
  3 status StatusProto
enum ModelVersionStatus.State
  UNKNOWN=0 START=10 LOADING=20 AVAILABLE=30 UNLOADING=40 END=50
message GetModelStatusResponse
  1 model_version_status ModelVersionStatus[] json model_version_status


file tensorflow_serving/config/file_system_storage_path_source.proto tensorflow.serving

message FileSystemStoragePathSourceConfig
  5 servables ServableToMonitor[]
  3 file_system_poll_wait_seconds int64
  4 fail_if_zero_versions_at_startup bool
  6 servable_versions_always_present bool
message FileSystemStoragePathSourceConfig.ServableVersionPolicy
  100 latest Latest in policy_choice
  101 all All in policy_choice
  102 specific Specific in policy_choice
message FileSystemStoragePathSourceConfig.ServableVersionPolicy.Latest
  1 num_versions uint32
message FileSystemStoragePathSourceConfig.ServableVersionPolicy.All
message FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific
  1 versions int64[]
message FileSystemStoragePathSourceConfig.ServableToMonitor
  1 servable_name string
  2 base_path string
  4 servable_version_policy ServableVersionPolicy


file tensorflow_serving/config/log_collector_config.proto tensorflow.serving

message LogCollectorConfig
  1 type string
  2 filename_prefix string


file tensorflow_serving/config/logging_config.proto tensorflow.serving
import google/protobuf/any.proto
import tensorflow_serving/config/log_collector_config.proto

message PerTaskSamplingConfig
  1 dc string
  2 task_index int32 optional
  3 sampling_rate double
message SamplingConfig
  1 sampling_rate double
  3 per_task_sampling_configs PerTaskSamplingConfig[]
  2 attributes int32
enum SamplingConfig.Attributes
  ATTR_DEFAULT=0 ATTR_REQUEST_ORIGIN=1 ATTR_REQUEST_CRITICALITY=2
message LoggingConfig
  1 log_collector_config LogCollectorConfig
  2 sampling_config SamplingConfig
  3 custom_logging_config google.protobuf.Any


file tensorflow_serving/config/model_server_config.proto tensorflow.serving
import google/protobuf/any.proto
import tensorflow_serving/config/file_system_storage_path_source.proto
import tensorflow_serving/config/logging_config.proto

enum ModelType
  MODEL_TYPE_UNSPECIFIED=0 TENSORFLOW=1 OTHER=2
message ModelConfig
  1 name string
  2 base_path string
  3 model_type ModelType
  4 model_platform string
  7 model_version_policy FileSystemStoragePathSourceConfig.ServableVersionPolicy
  8 version_labels map<string,int64>
  6 logging_config LoggingConfig
message ModelConfigList
  1 config ModelConfig[]
message ModelServerConfig
  1 model_config_list ModelConfigList in config
  2 custom_model_config google.protobuf.Any in config


file tensorflow_serving/apis/model_management.proto tensorflow.serving
import tensorflow_serving/apis/status.proto
import tensorflow_serving/config/model_server_config.proto

message ReloadConfigRequest
  1 config ModelServerConfig
  2 metric_names string[]
message ReloadConfigResponse
  1 status StatusProto
  2 metric Metric[]
message Metric
  1 name string
  2 int64_value_increase int64 in value_increase


file tensorflow_serving/apis/model_service.proto tensorflow.serving
import tensorflow_serving/apis/get_model_status.proto
import tensorflow_serving/apis/model_management.proto

service ModelService
  GetModelStatus GetModelStatusRequest GetModelStatusResponse
  HandleReloadConfigRequest ReloadConfigRequest ReloadConfigResponse
"""
