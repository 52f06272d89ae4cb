"""Filters compiled to SQL over the table of attributes: the oracle for masks over columns."""

from retrieval.filters.operators import Comparison, Compound, Contains, Exists, In
from retrieval.filters.values import TEXT, kind_of

SIGNS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


def filter_sql(condition):
    """Return a SELECT of the live items that satisfy the condition, and its parameters."""
    parameters = []
    return f"SELECT item FROM live_items WHERE {clause(condition, parameters)}", parameters  # noqa: S608 - constants


def clause(condition, parameters):  # noqa: PLR0911 - one for each class
    """Return an SQL condition on `item`, never NULL; appends its parameters."""
    match condition:
        case Compound(operator="$not"):
            return f"NOT {clause(condition.conditions[0], parameters)}"
        case Compound(operator="$and"):
            return f"({' AND '.join(clause(one, parameters) for one in condition.conditions) or '1'})"
        case Compound(operator="$or"):
            return f"({' OR '.join(clause(one, parameters) for one in condition.conditions) or '0'})"
        case Exists():
            return having(condition.key, "1", parameters)
        case Contains():
            return having(condition.key, f"kind = {TEXT} AND instr(value, ?) > 0", parameters, condition.text)
        case Comparison():
            test = f"kind = {kind_of(condition.value)} AND value {SIGNS[condition.operator]} ?"
            return having(condition.key, test, parameters, condition.value)
        case In():
            clauses = [having(condition.key, "kind = ? AND value = ?", parameters, *pair) for pair in condition.values]
            return f"({' OR '.join(clauses) or '0'})"


def having(key, test, parameters, *operands):
    parameters += [key, *operands]
    return f"item IN (SELECT item FROM attributes WHERE key = ? AND {test})"  # noqa: S608 - constants
