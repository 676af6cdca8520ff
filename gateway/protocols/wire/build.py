"""Compact field tables -> protobuf descriptors in a private pool.

What belongs here: the reader of the tables in ``tensorflow.py`` and ``serving.py``, and nothing
that knows a message by name. Rules: a table is text, one declaration a line, the first word says
what it is; names are resolved as in proto3, from the innermost scope outwards; only what proto3 can
say is read, and a line that makes no sense is a ``ValueError`` that quotes it.

The tables' language::

    file PATH PACKAGE          starts a file
    import PATH                a file whose types this one uses
    import public PATH         the same, passed on to whoever imports this file
    message NAME               starts a message; ``Outer.Inner`` nests it in a message above
      3 name string            field number, name, type; ``type[]`` repeats, ``map<key,value>`` maps
      4 label string in kind   member of the oneof ``kind``
      6 client bytes optional  a scalar with presence
      1 code Code json code    the name in JSON, where it is not the lower-camel-case one
    enum NAME                  starts an enumeration; rows of ``VALUE=number``
    service NAME               starts a service; rows of ``Method Request Response``, all unary

Options without effect on the wire, reserved ranges and comments have no place in the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool

_MESSAGE = FieldDescriptorProto.TYPE_MESSAGE
_ENUM = FieldDescriptorProto.TYPE_ENUM
_SCALARS = {
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "sint64": FieldDescriptorProto.TYPE_SINT64,
}


def read(*tables: str, known: Iterable[FileDescriptorProto] = ()) -> list[FileDescriptorProto]:
    """The files that the tables describe, in their order, with every type name resolved.

    ``known`` are files from elsewhere whose top-level types the tables may use.
    Raises ``ValueError`` for a line it can't read and for a type that nothing declares.
    """
    reader = _Reader(known)
    for line in (line for table in tables for line in table.splitlines()):
        if words := line.split():
            try:
                reader.line(words)
            except (ValueError, LookupError) as error:
                raise ValueError(f"descriptor table: {line.strip()!r}: {error}") from error
    return reader.finish()


def fill(pool: DescriptorPool, files: Iterable[FileDescriptorProto]) -> None:
    """Add files to the pool, each after the files it imports."""
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())


class _Reader:
    """One pass over the lines; type names wait for ``finish``, so that they may point forward."""

    def __init__(self, known: Iterable[FileDescriptorProto]) -> None:
        self._files: list[FileDescriptorProto] = []
        self._messages: dict[str, DescriptorProto] = {}
        self._kinds: dict[str, FieldDescriptorProto.Type.ValueType] = {
            f".{file.package}.{message.name}": _MESSAGE
            for file in known
            for message in file.message_type
        }
        self._types: list[tuple[FieldDescriptorProto, str, str]] = []  # field, scope, type's name
        self._calls: list[tuple[MethodDescriptorProto, str, str, str]] = []  # and two type names
        self._optional: list[tuple[DescriptorProto, FieldDescriptorProto]] = []
        self._row: Callable[[list[str]], None] = self._stray
        self._openers: dict[str, Callable[[list[str]], None]] = {
            "file": self._file,
            "import": self._import,
            "message": self._message,
            "enum": self._enum,
            "service": self._service,
        }

    def line(self, words: list[str]) -> None:
        opener = self._openers.get(words[0])
        if opener:
            opener(words[1:])
        else:
            self._row(words)

    def finish(self) -> list[FileDescriptorProto]:
        """Resolve names; put the one-member oneofs of optional fields after the real ones."""
        for field, scope, name in self._types:
            field.type_name = self._resolve(scope, name)
            field.type = self._kinds[field.type_name]
        for method, scope, request, response in self._calls:
            method.input_type = self._resolve(scope, request)
            method.output_type = self._resolve(scope, response)
        for message, field in self._optional:
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")
        return self._files

    def _resolve(self, scope: str, name: str) -> str:
        while scope:
            full = f"{scope}.{name}"
            if full in self._kinds:
                return full
            scope = scope.rpartition(".")[0]
        if f".{name}" in self._kinds:
            return f".{name}"
        raise ValueError(f"descriptor table: nothing declares the type {name!r}")

    def _stray(self, words: list[str]) -> None:
        raise ValueError("a row outside of any message, enum or service")

    def _file(self, words: list[str]) -> None:
        path, package = words
        self._files.append(FileDescriptorProto(name=path, package=package, syntax="proto3"))
        self._row = self._stray

    def _import(self, words: list[str]) -> None:
        file = self._files[-1]
        if words[0] == "public":
            file.public_dependency.append(len(file.dependency))
        file.dependency.append(words[-1])

    def _declare(self, name: str, kind: FieldDescriptorProto.Type.ValueType) -> tuple[str, str]:
        """Note a new type; returns its full name and that of the scope around it."""
        full = f".{self._files[-1].package}.{name}"
        if full in self._kinds:
            raise ValueError("declared twice")
        self._kinds[full] = kind
        return full, full.rpartition(".")[0]

    def _message(self, words: list[str]) -> None:
        (name,) = words
        full, outer = self._declare(name, _MESSAGE)
        siblings = (
            self._messages[outer].nested_type if "." in name else self._files[-1].message_type
        )
        message = self._messages[full] = siblings.add(name=full.rpartition(".")[2])
        self._row = lambda row: self._field(message, full, row)

    def _enum(self, words: list[str]) -> None:
        (name,) = words
        full, outer = self._declare(name, _ENUM)
        siblings = self._messages[outer].enum_type if "." in name else self._files[-1].enum_type
        enum = siblings.add(name=full.rpartition(".")[2])
        self._row = lambda row: self._values(enum, row)

    def _service(self, words: list[str]) -> None:
        (name,) = words
        file = self._files[-1]
        service = file.service.add(name=name)
        self._row = lambda row: self._method(service, f".{file.package}", row)

    def _field(self, message: DescriptorProto, scope: str, words: list[str]) -> None:
        number, name, type_, *options = words
        field = message.field.add(name=name, number=int(number))
        repeated = type_.endswith(("[]", ">"))
        field.label = (
            FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        )
        self._options(message, field, options)
        if type_.startswith("map<"):
            type_ = self._map(message, scope, name, type_[4:-1])
        self._typed(field, scope, type_.removesuffix("[]"))

    def _options(
        self, message: DescriptorProto, field: FieldDescriptorProto, words: list[str]
    ) -> None:
        match words:
            case []:
                pass
            case ["optional"]:
                self._optional.append((message, field))
            case ["json", name]:
                field.json_name = name
            case ["in", name]:
                names = [oneof.name for oneof in message.oneof_decl]
                if name not in names:
                    message.oneof_decl.add(name=name)
                    names.append(name)
                field.oneof_index = names.index(name)
            case _:
                raise ValueError(f"unknown words {' '.join(words)!r}")

    def _typed(self, field: FieldDescriptorProto, scope: str, type_: str) -> None:
        if type_ in _SCALARS:
            field.type = _SCALARS[type_]
        else:
            self._types.append((field, scope, type_))

    def _map(self, message: DescriptorProto, scope: str, name: str, types: str) -> str:
        """A map field is a repeated message of key and value, named after the field."""
        entry = message.nested_type.add(name="".join(map(str.title, name.split("_"))) + "Entry")
        entry.options.map_entry = True
        full = f"{scope}.{entry.name}"
        self._kinds[full] = _MESSAGE
        for number, (part, type_) in enumerate(
            zip(("key", "value"), types.split(","), strict=True), start=1
        ):
            field = entry.field.add(
                name=part, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL
            )
            self._typed(field, scope, type_)
        return entry.name

    def _values(self, enum: EnumDescriptorProto, words: list[str]) -> None:
        for name, _, number in (word.partition("=") for word in words):
            enum.value.add(name=name, number=int(number))

    def _method(self, service: ServiceDescriptorProto, scope: str, words: list[str]) -> None:
        name, request, response = words
        self._calls.append((service.method.add(name=name), scope, request, response))
