"""Conditions of a filter: each operator's class parses its operand and computes its mask.

To add an operator, write a subclass of `Leaf`, list it in `LEAVES`, and run it through `retrieval.testing.operators`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import iand, ior
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from retrieval.errors import QueryError
from retrieval.filters.values import Scalar, kind_of, normalize_value, short_repr

if TYPE_CHECKING:
    from retrieval.filters.columns import Columns, Mask


@dataclass(frozen=True, slots=True)
class Compound:
    """Joins conditions by `$and`, `$or` or `$not`; `$not` has one, and holds exactly where that does not."""

    operator: str
    conditions: tuple[Filter, ...]

    def mask(self, columns: Columns) -> Mask:
        """Combine the masks of the conditions."""
        masks = (condition.mask(columns) for condition in self.conditions)
        if self.operator == "$not":
            return ~next(masks)
        join, start = (ior, np.zeros) if self.operator == "$or" else (iand, np.ones)
        return reduce(join, masks, start(len(columns.live), np.bool_))


class Leaf(ABC):
    """A condition on the values under a dotted key, called by any of `operators`; one element of a list suffices."""

    __slots__ = ()
    operators: ClassVar[tuple[str, ...]]
    key: str

    @classmethod
    @abstractmethod
    def parse(cls, key: str, operand: object, *, operator: str) -> Filter:
        """Return the condition `{key: {operator: operand}}`, or raise a QueryError about the operand."""

    @abstractmethod
    def mask(self, columns: Columns) -> Mask:
        """Return True at the numbers of the items that satisfy the condition, whether they are live or not."""


Filter: TypeAlias = Compound | Leaf
"""A condition on the attributes of an item."""


def filter_keys(condition: Filter) -> frozenset[str]:
    """Return the keys of the attributes that the condition reads."""
    if isinstance(condition, Leaf):
        return frozenset((condition.key,))
    return frozenset().union(*map(filter_keys, condition.conditions))


@dataclass(frozen=True, slots=True)
class In(Leaf):
    """Holds where any value under the key equals one of these, each with its kind: Python takes True for 1."""

    operators = ("$eq", "$ne", "$in", "$nin")
    key: str
    values: frozenset[tuple[int, Scalar]]

    @classmethod
    def parse(cls, key: str, operand: object, *, operator: str) -> Filter:
        """Parse one value, or for `$in` and `$nin` a list of values; None stands for a missing attribute."""
        if operator in ("$eq", "$ne"):
            condition = cls.any_of(key, [operand])
        elif isinstance(operand, list | tuple | set | frozenset):
            condition = cls.any_of(key, operand)
        else:
            raise QueryError(f"{operator} under {short_repr(key)} needs a list of values, not {short_repr(operand)}.")
        return Compound("$not", (condition,)) if operator in ("$ne", "$nin") else condition

    @classmethod
    def any_of(cls, key: str, operands: Iterable[object]) -> Filter:
        """Return the condition that a value under the key equals any operand."""
        values = [parse_operand(key, operand) for operand in operands]
        condition = cls(key, frozenset((kind_of(value), value) for value in values if value is not None))
        return Compound("$or", (condition, Compound("$not", (Exists(key),)))) if None in values else condition

    def mask(self, columns: Columns) -> Mask:
        """Look the values up."""
        return columns.column(self.key).is_in(self.values)


@dataclass(frozen=True, slots=True)
class Comparison(Leaf):
    """Holds where any value of the same kind under the key is less or greater than the given one, or equal to it."""

    operators = ("$lt", "$lte", "$gt", "$gte")
    key: str
    operator: str
    value: float | str

    @classmethod
    def parse(cls, key: str, operand: object, *, operator: str) -> Filter:
        """Parse a number or a text."""
        value = parse_operand(key, operand)
        if value is None or isinstance(value, bool):
            raise QueryError(f"{operator} under {short_repr(key)} takes a number or text, not {short_repr(operand)}.")
        return cls(key, operator, value)

    def mask(self, columns: Columns) -> Mask:
        """Compare the numbers, or the texts, with the value."""
        return columns.column(self.key).compare(self.operator, self.value)


@dataclass(frozen=True, slots=True)
class Exists(Leaf):
    """Holds where the key has any value."""

    operators = ("$exists",)
    key: str

    @classmethod
    def parse(cls, key: str, operand: object, *, operator: str) -> Filter:
        """Parse true, or false for the opposite."""
        if isinstance(operand, bool):
            return cls(key) if operand else Compound("$not", (cls(key),))
        raise QueryError(f"{operator} under {short_repr(key)} is true or false, not {short_repr(operand)}.")

    def mask(self, columns: Columns) -> Mask:
        """Find the items with a value."""
        return columns.column(self.key).present()


@dataclass(frozen=True, slots=True)
class Contains(Leaf):
    """Holds where any text under the key contains the given one; case is ignored as equality ignores it."""

    operators = ("$contains",)
    key: str
    text: str

    @classmethod
    def parse(cls, key: str, operand: object, *, operator: str) -> Filter:
        """Parse a text; a number or a boolean, which no text contains, is looked for among the elements of a list."""
        value = parse_operand(key, operand)
        if value is None:
            raise QueryError(f"{operator} under {short_repr(key)} takes a text, a number or a boolean, not None.")
        return cls(key, value) if isinstance(value, str) else In.any_of(key, [value])

    def mask(self, columns: Columns) -> Mask:
        """Search each distinct text once."""
        return columns.column(self.key).matches_text(lambda text: self.text in text)


LEAVES: tuple[type[Leaf], ...] = (In, Comparison, Exists, Contains)

OPERATORS: dict[str, type[Leaf]] = {operator: leaf for leaf in LEAVES for operator in leaf.operators}


def parse_operand(key: str, operand: object) -> Scalar | None:
    """Return an operand as filters compare it, None for None; a QueryError says what it can be."""
    name = short_repr(key)
    try:
        value = normalize_value(operand)
    except TypeError:
        hint = "any of a list is $in" if isinstance(operand, Collection) else "dates are ISO text"
        raise QueryError(f"{name} can be text, a number or a boolean, not {short_repr(operand)}; {hint}.") from None
    if value is None and operand is not None:
        raise QueryError(f"{name} is compared with NaN, which equals nothing; missing is {{'$exists': false}}.")
    return value
