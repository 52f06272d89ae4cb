"""The route of facets: which attributes suit a sidebar, and which do not."""

import pytest
from cachetools import TTLCache
from fake_encoder import FakeEncoder
from serving import KEYS, READ, make_shop, serving

from retrieval.catalog import Catalog
from retrieval.server.routes import facets


@pytest.fixture
def facets_of(tmp_path):
    """Return the facets of a catalog of items with these attributes."""

    def list_facets(*attributes):
        with Catalog.open(tmp_path / "c", create=True) as catalog:
            catalog.upsert(
                {"id": f"p{number}", "attributes": given, "image_vectors": [[1.0, number, 0.0, 0.0]]}
                for number, given in enumerate(attributes)
            )
            with serving(catalog) as client:
                return client.get("/facets").json()

    return list_facets


def attributes_of(choice):
    return {facet["attribute"]: facet["kind"] for facet in choice["facets"]}


def test_few_values_are_a_list_and_many_numbers_a_range(facets_of):
    choice = facets_of(*({"color": ["red", "blue"][n % 2], "price": n / 3, "stars": n % 5} for n in range(60)))
    assert attributes_of(choice) == {"color": "values", "price": "numbers", "stars": "values"}


@pytest.mark.parametrize(
    ("why", "value"),
    [
        ("each item has its own", lambda n: f"name {n}"),
        ("whole numbers that differ from item to item are ids", lambda n: 1000 + n),
        ("all are alike", lambda _: "EUR"),
        ("nearly all are alike", lambda n: "EUR" if n else "USD"),
        ("one item in sixty has one", lambda n: ["a", "b"] if n == 7 else None),
        ("sentences fill a sidebar", lambda n: f"{n % 3} is a number, and so are many others that follow"),
    ],
)
def test_attributes_unfit_for_a_sidebar_are_left_out(facets_of, why, value):
    choice = facets_of(*({"kind": n % 2 == 0, "other": value(n)} for n in range(60)))
    assert attributes_of(choice) == {"kind": "values"}, why


def test_an_attribute_with_an_empty_name_is_skipped(facets_of):
    choice = facets_of(*({"": n % 2, "color": n % 2, "size": {"": n % 2}} for n in range(8)))
    assert attributes_of(choice) == {"color": "values", "size.": "values"}


def test_attributes_that_most_items_have_come_first(facets_of):
    choice = facets_of(*({"all": n % 3, "half": n % 4} if n % 2 else {"all": n % 3, "more": n} for n in range(40)))
    assert next(iter(attributes_of(choice))) == "all"


def test_variants_are_grouped_by_the_most_reliable_shared_attribute(facets_of):
    assert facets_of(*({"name": f"n{n}", "item_group_id": n // 3} for n in range(30)))["group"] == "item_group_id"


def test_an_attribute_unique_to_each_item_groups_nothing(facets_of):
    assert facets_of(*({"name": f"n{n}"} for n in range(30)))["group"] is None


def test_an_empty_catalog_has_no_facets(tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog, serving(catalog) as client:
        assert client.get("/facets").json() == {"facets": [], "group": None, "most": 1000}


def test_more_attributes_than_one_search_can_count(facets_of):
    choice = facets_of(*({f"a{key}": n % 2 for key in range(70)} for n in range(8)))
    assert len(choice["facets"]) == 12


def test_facets_are_chosen_again_after_a_minute(tmp_path, monkeypatch):
    counted, now = [], [0.0]
    monkeypatch.setattr(facets, "_count_values", lambda api: counted.append(api) or ({}, 0))
    with make_shop(tmp_path) as shop, serving(shop) as client:
        client.app.state.service.sidebar = TTLCache(1, ttl=60, timer=lambda: now[0])
        for now[0] in (0.0, 59.0, 61.0, 62.0):
            assert client.get("/facets").json() == {"facets": [], "group": None, "most": 1000}
    assert len(counted) == 2


def test_facets_require_a_key_with_read_scope(tmp_path):
    with make_shop(tmp_path) as shop, serving(shop, KEYS) as client:
        assert client.get("/facets").status_code == 401
        assert attributes_of(client.get("/facets", headers=READ).json()) == {"color": "values", "price": "values"}
