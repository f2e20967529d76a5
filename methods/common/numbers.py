"""Numbers that a user gives: within a range, or an error that says which."""


def require(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside low to high.

    Raises:
        ValueError: it is outside, or NaN; names the input, the number and the range.
    """
    if not low <= value <= high:
        raise ValueError(f"{name}: {value} is outside {low:g} to {high:g}.")


def parse_numbers(name: str, text: str, low: float, high: float, wanted: str) -> list[float]:
    """'0.1, 0.5' → these.

    Raises:
        ValueError: no such list, or a number outside.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name}: {text!r} is not a list. Give {wanted}.") from None
    for number in numbers:
        require(name, number, low, high)
    return numbers
