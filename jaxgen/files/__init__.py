"""This room reads and writes what is on disks and stores: paths, text, JSON, arrays, pictures, histories."""

from jaxgen.files.history import metric_lines, read_metrics
from jaxgen.files.lock import FolderLock
from jaxgen.files.paths import folder, inside, is_remote, regular_file, user_path
from jaxgen.files.reading import (
    as_type_of,
    decode_text,
    parse_json,
    read_json,
    read_json_lines,
    read_lines,
    read_text,
    text_lines,
)
from jaxgen.files.writing import (
    check_free,
    check_writable,
    check_writable_file,
    strict_json,
    whole_file,
    write_bytes,
    write_json,
)

__all__ = [
    "FolderLock", "as_type_of", "check_free", "check_writable", "check_writable_file", "decode_text", "folder",
    "inside", "is_remote", "metric_lines", "parse_json", "read_json", "read_json_lines", "read_lines", "read_metrics",
    "read_text", "regular_file", "strict_json", "text_lines", "user_path", "whole_file", "write_bytes", "write_json",
]  # fmt: skip
