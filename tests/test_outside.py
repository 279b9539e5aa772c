"""Files from outside: regular ones, of a bounded size and depth, and JSON without traps."""

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinat_ref.outside import DEEPEST, brief, open_regular, parse_json, read_json, read_text

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(JSON)
def test_honest_json_is_read_as_python_reads_it(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False, indent=1)) == value


@given(st.text(alphabet='[]{}",:\\1 ', max_size=40))
def test_whatever_the_text_it_is_read_or_refused(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"\w"):
            parse_json(text)
    else:
        named_twice = re.search(r'"([^"]*)"\s*:.*"\1"\s*:', text)
        if not named_twice:
            assert parse_json(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**5 + "]" * 10**5, "JSON must be nested at most 64 deep"),
        ('{"a":' * 10**5, "JSON must be nested at most 64 deep"),
        ("[" + "[]," * 200_000 + "[]]", "JSON must have at most 200,000 objects and lists, got 200,002"),
        ('{"id2label": {"0": "cat", "0": "dog"}}', "an object has the name '0' twice"),
        ('{"eps": NaN}', "NaN is no number in JSON"),
        ('{"eps": -Infinity}', "-Infinity is no number in JSON"),
        ("1" * 5000, "4300"),
        ("", "Expecting value"),
    ],
)
def test_traps(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_brackets_in_strings_are_not_deep():
    text = json.dumps({'a"[' * 30: "[{" * 10**4, "b": "]}" * 10**4})
    assert parse_json(text) == json.loads(text)
    deepest = "[" * DEEPEST + "]" * DEEPEST
    assert parse_json(deepest) == json.loads(deepest)


def test_only_regular_files_are_read(tmp_path):
    paths = [tmp_path, os.devnull]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # reading it would wait for a writer
        paths.append(tmp_path / "pipe")
    if os.path.exists("/dev/zero"):
        paths.append("/dev/zero")
    for path in paths:
        for read in (open_regular, read_text, read_json):
            with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is no regular file$"):
                read(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing.json")


def test_text_is_utf_8_and_not_too_long(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes("\ufeffLöwe\n".encode())
    assert read_text(path) == "Löwe\n"  # without the mark that Windows puts before it
    assert read_text(path, most_bytes=9) == "Löwe\n"
    with pytest.raises(ValueError, match=f"^{path} has more than 8 bytes$"):
        read_text(path, most_bytes=8)
    path.write_bytes(b"L\xf6we")
    with pytest.raises(ValueError, match=f"^{path} is no text in UTF-8$"):
        read_text(path)


def test_an_object_and_nothing_else(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[1]")
    with pytest.raises(ValueError, match=f"^{path} must hold one JSON object, got list$"):
        read_json(path)
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(ValueError, match=f"^{path}: an object has the name 'a' twice$"):
        read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=f"^{path} is no JSON: Expecting value: line 1"):
        read_json(path)


@given(JSON, st.integers(10, 80))
def test_values_are_shown_on_part_of_a_line(value, most):
    shown = brief(value, most)
    assert len(shown) <= most
    assert "\n" not in shown
    assert shown.isprintable() or not repr(value).isprintable()
