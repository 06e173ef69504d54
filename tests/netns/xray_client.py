"""What test_xray.py lets grpcio and xtlsapi do: xray_client.py HOST PORT; a JSON command a line, a JSON answer a line.

    {"call": "xray.app.stats.command.StatsService/GetStats", "request": {"name": "…"}}
    {"xtlsapi": "XrayClient", "method": "stats_query", "arguments": ["…"]}
    {"list": "v1"}

Messages are built from the descriptors that the server's own reflection gives. A TypedMessage is written with its type in
"@type" and given back so.
"""

import base64
import json
import sys

import grpc
import xtlsapi
import xtlsapi.exceptions
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

HOST, PORT = sys.argv[1], int(sys.argv[2])
CHANNEL = grpc.insecure_channel(f"{HOST}:{PORT}")
POOL = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(CHANNEL))
TYPED = "xray.common.serial.TypedMessage"


def build(kind, value):
    """A message of that type from plain JSON."""
    message = message_factory.GetMessageClass(kind)()
    fields = {field.name: field for field in kind.fields}
    plain = {}
    for name, item in value.items():
        field = fields[name]
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry:
            plain[name] = item
            continue
        items = item if isinstance(item, list) else [item]
        made = [typed(one) if inner.full_name == TYPED else build(inner, one) for one in items]
        if isinstance(item, list):
            getattr(message, name).extend(made)
        else:
            getattr(message, name).CopyFrom(made[0])
    json_format.ParseDict(plain, message)
    return message


def typed(value):
    value = dict(value)
    kind = value.pop("@type")
    carrier = message_factory.GetMessageClass(POOL.FindMessageTypeByName(TYPED))()
    carrier.type = kind
    if "@raw" in value:
        carrier.value = base64.b64decode(value["@raw"])
    else:
        carrier.value = build(POOL.FindMessageTypeByName(kind), value).SerializeToString()
    return carrier


def shown(message):
    """Plain JSON of a message, TypedMessages opened."""
    if message.DESCRIPTOR.full_name == TYPED:
        inner = message_factory.GetMessageClass(POOL.FindMessageTypeByName(message.type))()
        inner.ParseFromString(message.value)
        return {"@type": message.type, **shown(inner)}
    out = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            out[field.name] = plain(field, value)
        elif field.message_type.GetOptions().map_entry:
            out[field.name] = dict(value)
        elif field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED:
            out[field.name] = [shown(one) for one in value]
        else:
            out[field.name] = shown(value)
    return out


def plain(field, value):
    if field.label == field.LABEL_REPEATED:
        return [one.hex() if isinstance(one, bytes) else one for one in value]
    return value.hex() if isinstance(value, bytes) else value


def call(path, request):
    service, _, name = path.rpartition("/")
    method = POOL.FindServiceByName(service).FindMethodByName(name)
    answer = message_factory.GetMessageClass(method.output_type)
    make = CHANNEL.unary_stream if method.server_streaming else CHANNEL.unary_unary
    stub = make(f"/{path}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)
    try:
        got = stub(build(method.input_type, request), timeout=10)
        if method.server_streaming:
            for first in got:
                got.cancel()
                return {"code": 0, "response": shown(first)}
        return {"code": 0, "response": shown(got)}
    except grpc.RpcError as error:
        return {"code": error.code().value[0], "message": error.details()}


def by_xtlsapi(client, method, arguments):
    client = getattr(xtlsapi, client)(HOST, PORT)
    try:
        answer = getattr(client, method)(*arguments)
    except xtlsapi.exceptions.XRayException as error:
        return {"error": type(error).__name__}
    if hasattr(answer, "__len__") and not isinstance(answer, str):
        answer = sorted([one.name, one.value] if hasattr(one, "name") else str(one) for one in answer)
    return {"answer": answer if isinstance(answer, (int, bool, list, str, type(None))) else str(answer)}


def listed():
    stub = reflection_pb2_grpc.ServerReflectionStub(CHANNEL)
    answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    return {"services": [service.name for service in next(answers).list_services_response.service]}


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if "call" in command:
                answer = call(command["call"], command.get("request", {}))
            elif "xtlsapi" in command:
                answer = by_xtlsapi(command["xtlsapi"], command["method"], command["arguments"])
            else:
                answer = listed()
        except Exception as error:  # the test sees it
            answer = {"exception": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
