"""Which Python values are JSON values. Loaded by the library and by the server alike."""

import math

MAX_DEPTH = 100


def why_not_json(value: object, max_items: int = 1_000_000) -> str:
    """Empty if `value` survives JSON unchanged (tuples as lists), else the reason it does not."""
    pending = [(value, 0)]
    num_items = 0
    while pending:
        item, depth = pending.pop()
        num_items += 1
        if num_items > max_items:
            return f"it has more than {max_items} items"
        if item is None or isinstance(item, bool | int | str):
            continue
        if isinstance(item, float):
            if not math.isfinite(item):
                return f"{item} is a float that JSON does not have"
            continue
        if not isinstance(item, list | tuple | dict):
            return f"{type(item).__name__} is not a JSON type"
        if depth == MAX_DEPTH:
            return f"it is nested deeper than {MAX_DEPTH} levels"
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    return f"a dict key of type {type(key).__name__} is not a string"
            pending.extend((child, depth + 1) for child in item.values())
        else:
            pending.extend((child, depth + 1) for child in item)
    return ""
