"""Text and JSON that others wrote: what is right is read, and what is wrong is one sentence that says where."""

from __future__ import annotations

import os
from typing import Annotated, TypedDict

import msgspec
import pytest

from jaxgen.errors import UserError
from jaxgen.files import parse_json, read_json, read_json_lines, read_text, text_lines


class Levels(TypedDict, total=False):
    steps: Annotated[int, msgspec.Meta(ge=1)]
    betas: list[float] | None
    parts: dict[str, list[int]]


def test_a_byte_order_mark_is_not_a_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffa café\n".encode())
    assert read_text(tmp_path / "a.txt") == "a café\n"


@pytest.mark.parametrize(
    ("data", "told"),
    [("a\nsmall café".encode("latin-1"), r"a\.txt .*byte 11 \(line 2\) is 0xe9"), ("ab".encode("utf-16"), "UTF-16")],
)
def test_another_encoding_is_told_with_its_byte(tmp_path, data, told):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=told):
        read_text(tmp_path / "a.txt")


def test_lines_end_at_newlines_only():
    assert text_lines("a\u2028b\x0cc\r\nd\n\ne") == ["a\u2028b\x0cc", "d", "", "e"]
    assert text_lines("a\n") == ["a"] and text_lines("") == []


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe"):
        read_text(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_text(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"steps": "many"}', "'steps' is \"many\", where a whole number is needed"),
        ('{"steps": true}', "'steps' is true, where a whole number is needed"),
        ('{"steps": 0}', "'steps' is 0, where a whole number >= 1 is needed"),
        ('{"betas": [0.5, "x"]}', r"'betas\[1\]' is \"x\", where a number is needed"),
        ('{"betas": 3}', "'betas' is 3, where a list or null is needed"),
        ('{"parts": {"a": 1}}', "is 1, where a list is needed"),
        ("[1]", r"it holds \[1\], where an object of keys and values is needed"),
        ('{"steps": 1,\n "x" 2}', "line 2, column 6"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("1" * 5000, "a number that cannot be read"),
        ("", "not valid JSON"),
    ],
)
def test_json_of_the_wrong_type_names_the_key_what_was_found_and_what_is_needed(tmp_path, text, told):
    (tmp_path / "levels.json").write_text(text)
    with pytest.raises(UserError, match=told) as error:
        read_json(tmp_path / "levels.json", Levels)
    assert "levels.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "as_type", "told"),
    [
        ('{"a": {"x": 1}, "b": {"x": "s"}}', dict[str, dict[str, int]], "'b.x' is \"s\", where a whole number"),
        ('{"a": 1, "b": -2}', dict[str, Annotated[int, msgspec.Meta(ge=0)]], "'b' is -2, where a whole number >= 0"),
        ('[1, "\\ud83d"]', list, "holds .ud83d, half a character"),
    ],
)
def test_the_place_is_found_below_objects_with_any_keys(text, as_type, told):
    with pytest.raises(UserError, match=told):
        parse_json(text, "f.json", as_type)
    assert parse_json('"\\ud83d\\ude42"', "f.json") == "\U0001f642"


def test_right_json_is_its_value():
    text = '{"steps": 3, "betas": [1, 2.5], "other": 1}'
    assert parse_json(text, "here", Levels) == {"steps": 3, "betas": [1.0, 2.5]}
    assert parse_json("[1, {}]", "here") == [1, {}]


def test_each_line_of_a_file_may_be_a_value(tmp_path):
    (tmp_path / "a.jsonl").write_text('\ufeff{"a": "x\u2028y"}\r\n\n{"a": 1}\n')
    assert read_json_lines(tmp_path / "a.jsonl") == [{"a": "x\u2028y"}, {"a": 1}]
    with pytest.raises(UserError, match=r"a\.jsonl, line 3: 'a' is 1, where a text is needed"):
        read_json_lines(tmp_path / "a.jsonl", dict[str, str])
