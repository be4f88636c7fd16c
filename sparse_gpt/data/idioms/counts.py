"""How often each construct occurs in a program, read from its syntax tree and its tokens.

The constructs are the surroundings in which the twenty tasks' behaviors are learned; both sides of every choice are
counted separately, so that an imbalance shows.
"""

import ast
import io
import tokenize
from collections.abc import Iterator

CONSTRUCTS = (
    "single_quoted_call_end",
    "double_quoted_call_end",
    "list_flat_end",
    "list_nested_end",
    "set_start",
    "set_add",
    "string_start",
    "string_grow",
    "current_set",
    "current_string",
    "last_parameter_default",
    "last_parameter_plain",
    "self_copy",
    "with_open",
    "assign_open",
    "dict_key",
    "list_string",
    "open_read",
    "open_write",
    "for",
    "while",
    "else",
    "elif",
    "fstring",
    "plain_string",
    "if",
    "ternary",
    "swap",
    "nested_for",
    "lambda",
    "def",
    "if_equals",
    "assign_name",
    "for_enumerate",
    "for_range",
    "if_equals_truth",
    "assign_truth",
    "while_true",
    "return_true",
)
"""The names `construct_counts` reports, two or more per behavior."""


def construct_counts(text: str) -> dict[str, int]:
    """Counts of every construct in `CONSTRUCTS` in one program.

    Args:
        text: Python source.

    Returns:
        A count for each name in `CONSTRUCTS`, zeros included.

    Raises:
        SyntaxError: the text is not valid Python.
    """
    counts = dict.fromkeys(CONSTRUCTS, 0)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for name in _node_constructs(node):
            counts[name] += 1
    for name in _token_constructs(text):
        counts[name] += 1
    return counts


def _node_constructs(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.For():
            yield "for"
            yield from _for_constructs(node)
        case ast.While():
            yield "while"
            if _is_true(node.test):
                yield "while_true"
        case ast.If():
            yield "if"
            yield from _if_constructs(node)
        case ast.IfExp():
            yield "ternary"
        case ast.Lambda():
            yield "lambda"
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield "def"
            if node.args.args:
                yield "last_parameter_default" if node.args.defaults else "last_parameter_plain"
        case ast.Return(value=ast.Constant(value=True)):
            yield "return_true"
        case ast.With(items=[ast.withitem(context_expr=ast.Call(func=ast.Name(id="open")))]):
            yield "with_open"
        case ast.Assign():
            yield from _assign_constructs(node)
        case ast.AugAssign(target=ast.Name(), op=ast.Add(), value=ast.Constant(value=str()) | ast.JoinedStr()):
            yield "string_grow"
        case ast.Call(func=ast.Attribute(attr="add")):
            yield "set_add"
        case ast.Call(func=ast.Name(id="open"), args=[_, ast.Constant(value=str(mode))]):
            yield "open_write" if "w" in mode else "open_read"
        case ast.JoinedStr():
            yield "fstring"
        case ast.Constant(value=str()):
            yield "plain_string"
        case ast.Dict():
            yield from ("dict_key" for key in node.keys if isinstance(key, ast.Constant))
        case ast.List():
            yield from ("list_string" for item in node.elts if isinstance(item, ast.Constant) and _is_text(item))
        case _:
            return


def _for_constructs(node: ast.For) -> Iterator[str]:
    match node.iter:
        case ast.Call(func=ast.Name(id="enumerate" | "range" as name)):
            yield f"for_{name}"
    if any(isinstance(inner, ast.For) for statement in node.body for inner in ast.walk(statement)):
        yield "nested_for"


def _if_constructs(node: ast.If) -> Iterator[str]:
    match node.test:
        case ast.Compare(left=ast.Name(), ops=[ast.Eq()], comparators=[ast.Constant(value=bool())]):
            yield "if_equals_truth"
            yield "if_equals"
        case ast.Compare(left=ast.Name(), ops=[ast.Eq()]):
            yield "if_equals"
    if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If) and node.orelse[0].col_offset == node.col_offset:
        yield "elif"
    elif node.orelse:
        yield "else"


def _assign_constructs(node: ast.Assign) -> Iterator[str]:
    match node.targets[0], node.value:
        case ast.Name(id=name), ast.Call(func=ast.Name(id="set"), args=[]):
            yield "current_set" if name == "current" else "set_start"
        case ast.Name(id=name), ast.Constant(value=""):
            yield "current_string" if name == "current" else "string_start"
        case ast.Name(), ast.Call(func=ast.Name(id="open")):
            yield "assign_open"
        case ast.Name(), ast.Constant(value=bool()):
            yield "assign_truth"
        case ast.Tuple(elts=[left, right]), ast.Tuple(elts=[first, second]):
            if ast.unparse(left) == ast.unparse(second) and ast.unparse(right) == ast.unparse(first):
                yield "swap"
        case ast.Attribute(value=ast.Name(id="self"), attr=attribute), ast.Name(id=name) if attribute == name:
            yield "self_copy"
    if isinstance(node.targets[0], ast.Name):
        yield "assign_name"


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _is_text(node: ast.Constant) -> bool:
    return isinstance(node.value, str)


def _token_constructs(text: str) -> Iterator[str]:
    """What the syntax tree does not keep: quotation marks, and how many brackets close at the end of a line."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.string == ")" and before.string and before.string[-1] in "'\"" and after.type == tokenize.NEWLINE:
            yield "single_quoted_call_end" if before.string[-1] == "'" else "double_quoted_call_end"
        elif token.string == "]" and after.type == tokenize.NEWLINE:
            yield "list_nested_end" if before.string == "]" else "list_flat_end"
