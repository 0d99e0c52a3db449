"""Documents: YAML and JSON that others may have written, read without surprises.

Nothing in them is executed, and nothing small becomes large.

    parsed_yaml("training: {epochs: 3}")  # {'training': {'epochs': 3}}
"""

import json

import yaml

from h2mv_tf.errors import words

LARGEST_YAML = 200_000  # characters; the parser reads some 50 000 a second
LARGEST_JSON = 100_000_000
MOST_PARTS, DEEPEST = 100_000, 50  # once what is named twice stands twice
# Of a number; Python does not write those of many thousands, which libraries try to.
MOST_DIGITS = 300
INTEGER = "tag:yaml.org,2002:int"


def parsed_yaml(text: str) -> object:
    """What a YAML document says, of plain types only.

    Args:
        text: The document.

    Raises:
        ValueError: It is no YAML, has tags of code, or is too large, in one line.
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(
            f"it has {len(text)} characters; expected {LARGEST_YAML} at most"
        )
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _size(node, {}, 0)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except TooLargeError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except Exception as error:  # of dates, numbers and tags the library raises a dozen
        raise ValueError(words(error)) from error


def parsed_json(text: str | bytes) -> object:
    """What a JSON document says; numbers may be NaN or infinite.

    Args:
        text: The document.

    Raises:
        ValueError: It is no JSON, or too large, in one line.
    """
    if len(text) > LARGEST_JSON:
        raise ValueError(
            f"it has {len(text)} characters; expected {LARGEST_JSON} at most"
        )
    try:
        return json.loads(text, parse_int=_parsed_integer)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except ValueError as error:
        raise ValueError(words(error)) from error


class TooLargeError(Exception):
    """A document that is larger than it looks."""


def _size(
    node: yaml.Node, known: dict[int, tuple[int, int] | None], depth: int
) -> tuple[int, int]:
    """How many parts and levels a document has, once aliases are what they mean.

    The YAML library makes one object of an anchor and all its aliases; what walks
    through them, as a merge key does, meets each as often as it is named.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise TooLargeError("a part of it contains itself")
        return found
    known[id(node)] = None  # until it is known
    size, levels = 1, 0
    if node.tag == INTEGER and len(node.value) > MOST_DIGITS:
        raise TooLargeError(f"a number of it has {len(node.value)} digits")
    if isinstance(node, yaml.CollectionNode):
        for part in node.value:
            for inner in part if isinstance(part, tuple) else (part,):
                parts, below = _size(inner, known, depth + 1)
                size, levels = size + parts, max(levels, below + 1)
    if depth + levels > DEEPEST:
        raise TooLargeError(_too_deep())
    if size > MOST_PARTS:
        raise TooLargeError(
            f"its aliases make more than {MOST_PARTS} parts of it, which nobody means"
        )
    known[id(node)] = size, levels
    return size, levels


def _too_deep() -> str:
    return f"it is nested deeper than {DEEPEST} levels"


def _parsed_integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of it has {len(digits)} digits")
    return int(digits)
