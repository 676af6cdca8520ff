"""TensorFlow's own messages, as far as TensorFlow Serving's API refers to them.

What belongs here: a table in the language of ``build.py`` with the files of the ``tensorflow``
packages, under their official paths. Rules: numbers and names follow TensorFlow 2.21 to the letter;
a file is complete unless the list below says otherwise.

Left out on purpose: of ``meta_graph.proto`` all but ``TensorInfo`` and ``SignatureDef`` (a served
model's metadata holds signatures, never graphs), and with it the imports that only graphs need.
"""

from __future__ import annotations

TABLE = """
file tensorflow/core/framework/types.proto tensorflow

message SerializedDType
  1 datatype DataType

enum DataType
  DT_INVALID=0 DT_FLOAT=1 DT_DOUBLE=2 DT_INT32=3 DT_UINT8=4 DT_INT16=5 DT_INT8=6 DT_STRING=7
  DT_COMPLEX64=8 DT_INT64=9 DT_BOOL=10 DT_QINT8=11 DT_QUINT8=12 DT_QINT32=13 DT_BFLOAT16=14
  DT_QINT16=15 DT_QUINT16=16 DT_UINT16=17 DT_COMPLEX128=18 DT_HALF=19 DT_RESOURCE=20 DT_VARIANT=21
  DT_UINT32=22 DT_UINT64=23 DT_FLOAT8_E5M2=24 DT_FLOAT8_E4M3FN=25 DT_FLOAT8_E4M3FNUZ=26
  DT_FLOAT8_E4M3B11FNUZ=27 DT_FLOAT8_E5M2FNUZ=28 DT_INT4=29 DT_UINT4=30 DT_INT2=31 DT_UINT2=32
  DT_FLOAT4_E2M1FN=33
  DT_FLOAT_REF=101 DT_DOUBLE_REF=102 DT_INT32_REF=103 DT_UINT8_REF=104 DT_INT16_REF=105
  DT_INT8_REF=106 DT_STRING_REF=107 DT_COMPLEX64_REF=108 DT_INT64_REF=109 DT_BOOL_REF=110
  DT_QINT8_REF=111 DT_QUINT8_REF=112 DT_QINT32_REF=113 DT_BFLOAT16_REF=114 DT_QINT16_REF=115
  DT_QUINT16_REF=116 DT_UINT16_REF=117 DT_COMPLEX128_REF=118 DT_HALF_REF=119 DT_RESOURCE_REF=120
  DT_VARIANT_REF=121 DT_UINT32_REF=122 DT_UINT64_REF=123 DT_FLOAT8_E5M2_REF=124
  DT_FLOAT8_E4M3FN_REF=125 DT_FLOAT8_E4M3FNUZ_REF=126 DT_FLOAT8_E4M3B11FNUZ_REF=127
  DT_FLOAT8_E5M2FNUZ_REF=128 DT_INT4_REF=129 DT_UINT4_REF=130 DT_INT2_REF=131 DT_UINT2_REF=132
  DT_FLOAT4_E2M1FN_REF=133


file tensorflow/core/framework/tensor_shape.proto tensorflow

message TensorShapeProto
  2 dim Dim[]
  3 unknown_rank bool
message TensorShapeProto.Dim
  1 size int64
  2 name string


file tensorflow/core/framework/resource_handle.proto tensorflow
import tensorflow/core/framework/tensor_shape.proto
import tensorflow/core/framework/types.proto

message ResourceHandleProto
  1 device string
  2 container string
  3 name string
  4 hash_code uint64
  5 maybe_type_name string
  6 dtypes_and_shapes DtypeAndShape[]
message ResourceHandleProto.DtypeAndShape
  1 dtype DataType
  2 shape TensorShapeProto


file tensorflow/core/framework/tensor.proto tensorflow
import tensorflow/core/framework/resource_handle.proto
import tensorflow/core/framework/tensor_shape.proto
import tensorflow/core/framework/types.proto

message TensorProto
  1 dtype DataType
  2 tensor_shape TensorShapeProto
  3 version_number int32
  4 tensor_content bytes
  5 float_val float[]
  6 double_val double[]
  7 int_val int32[]
  8 string_val bytes[]
  9 scomplex_val float[]
  10 int64_val int64[]
  11 bool_val bool[]
  12 dcomplex_val double[]
  13 half_val int32[]
  14 resource_handle_val ResourceHandleProto[]
  15 variant_val VariantTensorDataProto[]
  16 uint32_val uint32[]
  17 uint64_val uint64[]
  18 float8_val bytes
message VariantTensorDataProto
  1 type_name string
  2 metadata bytes
  3 tensors TensorProto[]


file tensorflow/core/example/feature.proto tensorflow

message BytesList
  1 value bytes[]
message FloatList
  1 value float[]
message Int64List
  1 value int64[]
message Feature
  1 bytes_list BytesList in kind
  2 float_list FloatList in kind
  3 int64_list Int64List in kind
message Features
  1 feature map<string,Feature>
message FeatureList
  1 feature Feature[]
message FeatureLists
  1 feature_list map<string,FeatureList>


file tensorflow/core/example/example.proto tensorflow
import tensorflow/core/example/feature.proto

message Example
  1 features Features
message SequenceExample
  1 context Features
  2 feature_lists FeatureLists


file tensorflow/core/protobuf/struct.proto tensorflow
import tensorflow/core/framework/tensor.proto
import tensorflow/core/framework/tensor_shape.proto
import tensorflow/core/framework/types.proto

message StructuredValue
  1 none_value NoneValue in kind
  11 float64_value double in kind
  12 int64_value sint64 in kind
  13 string_value string in kind
  14 bool_value bool in kind
  31 tensor_shape_value TensorShapeProto in kind
  32 tensor_dtype_value DataType in kind
  33 tensor_spec_value TensorSpecProto in kind
  34 type_spec_value TypeSpecProto in kind
  35 bounded_tensor_spec_value BoundedTensorSpecProto in kind
  51 list_value ListValue in kind
  52 tuple_value TupleValue in kind
  53 dict_value DictValue in kind
  54 named_tuple_value NamedTupleValue in kind
  55 tensor_value TensorProto in kind
  56 numpy_value TensorProto in kind
message NoneValue
message ListValue
  1 values StructuredValue[]
message TupleValue
  1 values StructuredValue[]
message DictValue
  1 fields map<string,StructuredValue>
message PairValue
  1 key string
  2 value StructuredValue
message NamedTupleValue
  1 name string
  2 values PairValue[]
message TensorSpecProto
  1 name string
  2 shape TensorShapeProto
  3 dtype DataType
message BoundedTensorSpecProto
  1 name string
  2 shape TensorShapeProto
  3 dtype DataType
  4 minimum TensorProto
  5 maximum TensorProto
message TypeSpecProto
  1 type_spec_class TypeSpecClass
  2 type_state StructuredValue
  3 type_spec_class_name string
  4 num_flat_components int32
enum TypeSpecProto.TypeSpecClass
  UNKNOWN=0 SPARSE_TENSOR_SPEC=1 INDEXED_SLICES_SPEC=2 RAGGED_TENSOR_SPEC=3 TENSOR_ARRAY_SPEC=4
  DATA_DATASET_SPEC=5 DATA_ITERATOR_SPEC=6 OPTIONAL_SPEC=7 PER_REPLICA_SPEC=8 VARIABLE_SPEC=9
  ROW_PARTITION_SPEC=10 REGISTERED_TYPE_SPEC=12 EXTENSION_TYPE_SPEC=13


file tensorflow/core/protobuf/meta_graph.proto tensorflow
import tensorflow/core/framework/tensor.proto
import tensorflow/core/framework/tensor_shape.proto
import tensorflow/core/framework/types.proto
import tensorflow/core/protobuf/struct.proto

message TensorInfo
  1 name string in encoding
  4 coo_sparse CooSparse in encoding
  5 composite_tensor CompositeTensor in encoding
  2 dtype DataType
  3 tensor_shape TensorShapeProto
message TensorInfo.CooSparse
  1 values_tensor_name string
  2 indices_tensor_name string
  3 dense_shape_tensor_name string
message TensorInfo.CompositeTensor
  1 type_spec TypeSpecProto
  2 components TensorInfo[]
message SignatureDef
  1 inputs map<string,TensorInfo>
  2 outputs map<string,TensorInfo>
  3 method_name string
  4 defaults map<string,TensorProto>


file xla/tsl/protobuf/error_codes.proto tensorflow.error

enum Code
  OK=0 CANCELLED=1 UNKNOWN=2 INVALID_ARGUMENT=3 DEADLINE_EXCEEDED=4 NOT_FOUND=5 ALREADY_EXISTS=6
  PERMISSION_DENIED=7 RESOURCE_EXHAUSTED=8 FAILED_PRECONDITION=9 ABORTED=10 OUT_OF_RANGE=11
  UNIMPLEMENTED=12 INTERNAL=13 UNAVAILABLE=14 DATA_LOSS=15 UNAUTHENTICATED=16
  DO_NOT_USE_RESERVED_FOR_FUTURE_EXPANSION_USE_DEFAULT_IN_SWITCH_INSTEAD_=20


file tensorflow/core/protobuf/error_codes.proto tensorflow.error.dummy
import public xla/tsl/protobuf/error_codes.proto
"""
