"""Part of Triton's ModelConfig message that is written, to parse config.pbtxt without Triton's packages."""

from __future__ import annotations

from typing import Any


def model_config() -> Any:
    """Return the part of Triton's message ModelConfig that is written, with its field numbers (model_config.proto)."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    file.enum_type.add(name="DataType").value.add(name="TYPE_INVALID", number=0)
    file.enum_type[0].value.add(name="TYPE_FP32", number=11)
    messages: dict[str, list[tuple[str, int, Any, bool, str]]] = {
        "ModelInput": [
            ("name", 1, kinds.TYPE_STRING, False, ""),
            ("data_type", 2, kinds.TYPE_ENUM, False, "DataType"),
            ("dims", 4, kinds.TYPE_INT64, True, ""),
        ],
        "ModelOutput": [
            ("name", 1, kinds.TYPE_STRING, False, ""),
            ("data_type", 2, kinds.TYPE_ENUM, False, "DataType"),
            ("dims", 3, kinds.TYPE_INT64, True, ""),
            ("label_filename", 4, kinds.TYPE_STRING, False, ""),
        ],
        "ModelDynamicBatching": [("max_queue_delay_microseconds", 2, kinds.TYPE_UINT64, False, "")],
        "ModelParameter": [("string_value", 1, kinds.TYPE_STRING, False, "")],
        # What protobuf makes of map<string, ModelParameter>, apart from the type in Python.
        "ParametersEntry": [
            ("key", 1, kinds.TYPE_STRING, False, ""),
            ("value", 2, kinds.TYPE_MESSAGE, False, "ModelParameter"),
        ],
        "ModelConfig": [
            ("name", 1, kinds.TYPE_STRING, False, ""),
            ("max_batch_size", 4, kinds.TYPE_INT32, False, ""),
            ("input", 5, kinds.TYPE_MESSAGE, True, "ModelInput"),
            ("output", 6, kinds.TYPE_MESSAGE, True, "ModelOutput"),
            ("dynamic_batching", 11, kinds.TYPE_MESSAGE, False, "ModelDynamicBatching"),
            ("parameters", 14, kinds.TYPE_MESSAGE, True, "ParametersEntry"),
            ("backend", 17, kinds.TYPE_STRING, False, ""),
        ],
    }
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated, of in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            type_name = f".inference.{of}" if of else None
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
