"""Turns registered .proto files into descriptors, with the compiler itself: grpcio-tools carries it.

In a process of its own: a schema that is hostile to the compiler costs its records and nothing else.
"""

import base64
import binascii
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from pipeline.errors import Reason, RecordError
from pipeline.records.schemas.registry import Schema

TIMEOUT_S = 30.0
"""Longest time that one schema may take to compile."""

_ROOT = "__root__.proto"
"""What the file that is compiled is called where it is registered as text: it has no name there."""

_META = "confluent/meta.proto"
_DECIMAL = "confluent/type/decimal.proto"

_BUILT_IN: Mapping[str, str] = {
    _META: """syntax = "proto3";
package confluent;
import "google/protobuf/descriptor.proto";
message Rule { string name = 1; string doc = 2; string expr = 3; string sql = 4; }
message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; repeated Rule rules = 4; }
extend google.protobuf.FileOptions { Meta file_meta = 1088; }
extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }
""",
    _DECIMAL: """syntax = "proto3";
package confluent.type;
message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
""",
}
"""Files that Confluent's registry knows without a reference: names and numbers as its serializers have them."""


@lru_cache(maxsize=64)
def compiled(schema: Schema, used: tuple[tuple[str, Schema], ...]) -> FileDescriptor:
    """Returns the descriptor of a registered file, in a pool of its own together with those that it uses.

    Raises RecordError: UNUSABLE_SCHEMA, or WRONG_FORMAT for schemas of other types.
    """
    texts: dict[str, str] = dict(_BUILT_IN)
    ready = FileDescriptorSet()
    root = _ROOT
    for name, each in (*used, (_ROOT, schema)):
        if each.kind != "PROTOBUF":
            raise RecordError(Reason.WRONG_FORMAT, f"the schema is of type {each.kind}, not PROTOBUF")
        texts.pop(name, None)
        if (descriptor := _serialised(each.text)) is None:
            texts[_safe(name)] = each.text
            continue
        if name == _ROOT:
            root = descriptor.name = _safe(descriptor.name or _ROOT)
        else:
            descriptor.name = name
        ready.file.append(descriptor)
    with TemporaryDirectory(prefix="refract-protoc-") as folder:
        for name, text in texts.items():
            path = Path(folder, "files", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        given = Path(folder, "given")
        given.write_bytes(ready.SerializeToString())
        found = run_protoc(Path(folder, "files"), root, given)
    return load(found, root)


def load(found: FileDescriptorSet, root: str) -> FileDescriptor:
    """Returns the descriptor of one of the files. Raises RecordError."""
    pool = DescriptorPool()
    try:
        for file in found.file:
            pool.AddSerializedFile(file.SerializeToString())
        return pool.FindFileByName(root)
    except (TypeError, KeyError):
        raise RecordError(Reason.UNUSABLE_SCHEMA, "descriptors that contradict each other") from None


def run_protoc(folder: Path, root: str, given: Path | None = None) -> FileDescriptorSet:
    """Compiles a file of a folder, and those that it imports from there. Raises RecordError, UNUSABLE_SCHEMA.

    `given` holds descriptors, for imports that are not in the folder.
    """
    with TemporaryDirectory(prefix="refract-protoc-") as output:
        out = Path(output, "descriptors")
        imports = [f"--proto_path={path}" for path in (folder, *_well_known())]
        command = [sys.executable, "-m", "grpc_tools.protoc", *imports, "--include_imports"]
        command += [f"--descriptor_set_in={given}"] if given is not None and given.stat().st_size else []
        command += [f"--descriptor_set_out={out}", root]
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter; the schema's names were made safe
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise RecordError(Reason.UNUSABLE_SCHEMA, f"compiling it took longer than {TIMEOUT_S:.0f} s") from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["protoc failed"])[0].replace(f"{folder}/", "")
            raise RecordError(Reason.UNUSABLE_SCHEMA, said[:200])
        return FileDescriptorSet.FromString(out.read_bytes())


def _well_known() -> list[str]:
    """Returns the folders of google/protobuf and of google/type, where those are installed."""
    return [f"{folder}/_proto" for folder in _folders("grpc_tools")] + [
        str(Path(folder).parents[1]) for folder in _folders("google.type")
    ]


def _folders(package: str) -> list[str]:
    found = importlib.util.find_spec(package)
    return list(found.submodule_search_locations or ()) if found is not None else []


def _serialised(text: str) -> FileDescriptorProto | None:
    """Returns what Confluent's Python client registers: a descriptor, in base64."""
    try:
        return FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None


def _safe(name: str) -> str:
    """Returns a file's name. Raises RecordError for one that would lie outside of its folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name.startswith("-"):
        raise RecordError(Reason.UNUSABLE_SCHEMA, "a reference's name is not the relative path of a .proto file")
    return name
