"""Google Merchant's feeds as tables, columns that are mapped, pictures of URLs, and a feed's sync from end to end."""

import json

import pytest
from fake_encoder import FakeEncoder
from hypothesis import given
from hypothesis import strategies as st
from pair_files import captions_by_name, read_error, skip_reasons, write_jsonl, write_pictures, write_text
from PIL import Image

from retrieval.catalog import Catalog
from retrieval.errors import ColumnError, ImageError
from retrieval.pairs import read_pairs
from retrieval.pairs.image_folder import _basename_candidates
from retrieval.pairs.table_schemas import read_records
from retrieval.pairs.tables import Table

GOOGLE_TSV = (
    "id\ttitle\tdescription\tlink\timage link\tadditional image link\tavailability\tprice\tsale price\tbrand\tgtin\t"
    "mpn\tcondition\tgoogle product category\tproduct type\titem group id\tcolor\tsize\tgender\tage group\tmaterial\t"
    "pattern\tshipping\tis bundle\tmultipack\tcustom label 0\tcost of goods sold\tpopularity\n"
    "TEE-01\tMens Pique Polo\t<p>Made from <b>organic</b> cotton.</p>\thttps://shop.example/tee\t"
    "https://cdn.example/img/tee-main.jpg?v=12\t"
    "https://cdn.example/img/tee-back.jpg,https://cdn.example/w_1,h_2/tee%20side.jpg\t"
    "in stock\t39.00 USD\t29.50 USD\tGoogle\t09504000059422\tGO12345\tnew\t"
    "Apparel & Accessories > Clothing > Shirts & Tops\tHome > Men > Polos\tTEE\tBlack/Gray\tM\tmale\tadult\t"
    "cotton/elastane\tstriped\tUS:CA:Overnight:16.00 USD\tno\t3\tsummer\t11.00 USD\t17\n"
    "0007\tPlain Tee\tPlain.\thttps://shop.example/p\thttps://cdn.example/img/plain.jpg\t\tout_of_stock\t12 USD\t\t"
    "\t\t\t\t212\t\tTEE\tRed\tL\t\t\t\t\t\t\t\t\t\t4\n"
)


def shop_pictures(tmp_path):
    return write_pictures(tmp_path / "pictures", "tee-main.jpg", "tee-back.jpg", "tee side.jpg", "plain.jpg")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".txt.csv"])
def test_every_attribute_of_a_google_feed_has_its_type(tmp_path, encoding, suffix):
    source = write_text(tmp_path / f"feed{suffix}", GOOGLE_TSV, encoding=encoding)
    pairs = read_pairs(source, images=shop_pictures(tmp_path))
    assert (pairs.layout, pairs.skipped) == ("google merchant", ())
    assert [(pair.id, pair.image.name) for pair in pairs] == [
        ("TEE-01", "tee-main.jpg"),
        ("TEE-01", "tee-back.jpg"),
        ("TEE-01", "tee side.jpg"),
        ("0007", "plain.jpg"),
    ]
    assert pairs[0].captions == ("Mens Pique Polo", "Made from organic cotton.")
    assert pairs[0].attributes == {
        "link": "https://shop.example/tee",
        "availability": "in_stock",
        "in_stock": True,
        "price": 39.0,
        "sale_price": 29.5,
        "currency": "USD",
        "brand": "Google",
        "gtin": "09504000059422",
        "mpn": "GO12345",
        "condition": "new",
        "google_product_category": ["Apparel & Accessories", "Clothing", "Shirts & Tops"],
        "product_type": ["Home", "Men", "Polos"],
        "item_group_id": "TEE",
        "color": ["Black", "Gray"],
        "size": "M",
        "gender": "male",
        "age_group": "adult",
        "material": ["cotton", "elastane"],
        "pattern": "striped",
        "shipping": "US:CA:Overnight:16.00 USD",
        "is_bundle": False,
        "multipack": 3,
        "custom_label_0": "summer",
        "popularity": 17,
    }
    assert pairs[3].attributes == {
        "link": "https://shop.example/p",
        "availability": "out_of_stock",
        "in_stock": False,
        "price": 12.0,
        "currency": "USD",
        "google_product_category": ["212"],
        "item_group_id": "TEE",
        "color": "Red",
        "size": "L",
        "popularity": 4,
    }


@pytest.mark.parametrize(
    ("said", "kept", "in_stock"),
    [
        ("in stock", "in_stock", True),
        ("In_Stock", "in_stock", True),
        ("https://schema.org/InStock", "in_stock", True),
        ("limited availability", "limited_availability", True),
        ("OutOfStock", "out_of_stock", False),
        ("preorder", "preorder", False),
        ("backorder", "backorder", False),
    ],
)
def test_availability_is_normalized(tmp_path, said, kept, in_stock):
    write_pictures(tmp_path, "a.jpg")
    row = {"id": 1, "title": "A", "image_link": "a.jpg", "availability": said}
    attributes = read_pairs(write_jsonl(tmp_path / "f.jsonl", row))[0].attributes
    assert attributes == {"availability": kept, "in_stock": in_stock}


def test_skipped_rows_of_a_google_feed_have_line_id_and_reason(tmp_path):
    write_pictures(tmp_path, "a.jpg", "b.jpg")
    rows = [
        "id,title,image_link,additional_image_link,availability,price,sale_price",
        "1,Good,a.jpg,,in stock,5 USD,",
        ",No id,a.jpg,,in stock,5 USD,",
        "1,Again,b.jpg,,in stock,5 USD,",
        "2,No picture,,,in stock,5 USD,",
        "3,Lost,https://x.example/lost.jpg,,in stock,5 USD,",
        "4,Ask,b.jpg,gone.jpg,in stock,ask,4 EUR",
        "5,Sale,b.jpg,,in stock,5 USD,4 EUR",
        "6,Too,many,cells,in stock,5,4,3",
        '7,"quo"te,b.jpg,,in stock,5,4',
    ]
    pairs = read_pairs(write_text(tmp_path / "f.csv", "\n".join(rows)))
    assert [pair.id for pair in pairs] == ["1", "4", "5"]
    assert [pair.attributes.get("price") for pair in pairs] == [5.0, None, 5.0]
    assert pairs[1].attributes["sale_price"] == 4.0
    without = "the item is added without it"
    assert skip_reasons(pairs) == {
        "f.csv line 3": "has no id",
        "f.csv line 4 (1)": "repeats the id of line 2, which is kept",
        "f.csv line 5 (2)": "names no image",
        "https://x.example/lost.jpg": "is a URL, which is not fetched; give the folder of the images with --images "
        "(f.csv line 6)",
        "f.csv line 7 (4)": f"has price 'ask', which is not a price such as 15.00 USD; {without}",
        "gone.jpg": f"there is no such file in {tmp_path} (f.csv line 7)",
        "f.csv line 8 (5)": f"has sale_price in EUR where its price is in USD; {without}",
        "f.csv line 9": "has 8 values where the header has 7",
        "f.csv line 10": "is not CSV (',' expected after '\"'); double a quote inside a cell, and quote the cell",
    }
    lost = next(one for one in pairs.skipped if one.name.endswith("lost.jpg"))
    assert (lost.row, lost.id) == ("f.csv line 6", "3")


def test_a_table_with_neither_link_nor_availability_is_a_plain_table(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    pairs = read_pairs(write_text(tmp_path / "t.csv", "id,title,image_link,price\n1,A,a.jpg,5 USD\n"))
    assert (pairs.layout, pairs[0].attributes) == ("table", {"price": "5 USD"})


# --- columns that are mapped


def test_columns_of_any_name_are_mapped(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    row = {"SKU": "A-1", "photo": "a.jpg", "name": "Bag", "long text": "Red.", "cost": 5, "file_name": "x", "id": 9}
    fields = {"id": "sku", "image": "photo", "title": "name", "description": "Long Text", "price": "cost"}
    for source in (write_jsonl(tmp_path / "t.jsonl", row), write_text(tmp_path / "t.json", json.dumps([row]))):
        pair = read_pairs(source, map=fields)[0]
        assert (pair.id, pair.image.name, pair.captions, pair.attributes) == (
            "A-1",
            "a.jpg",
            ("Bag", "Red."),
            {"price": 5},
        )


def test_one_column_serves_several_fields_and_an_empty_one_drops_its_field(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    source = write_text(tmp_path / "t.csv", "name,pic,Secret,price\nBag,a.jpg,x,5\n")
    pair = read_pairs(source, map={"id": "name", "title": "name", "image": "pic", "secret": ""})[0]
    assert (pair.id, pair.captions, pair.attributes) == ("Bag", ("Bag",), {"price": 5})


def test_mapped_columns_make_a_google_feed(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    source = write_text(tmp_path / "t.csv", "nr;name;pic;stock;euro\n1;Bag;a.jpg;in stock;5,00 EUR\n")
    fields = {"id": "nr", "title": "name", "image": "pic", "availability": "stock", "price": "euro", "currency": ""}
    pairs = read_pairs(source, map=fields)
    assert (pairs.layout, pairs[0].captions) == ("google merchant", ("Bag",))
    assert pairs[0].attributes == {"price": 5.0, "availability": "in_stock", "in_stock": True}


def test_a_missing_column_is_refused_with_similar_names(tmp_path):
    source = write_text(tmp_path / "t.csv", "sku,photo,product name\n1,a.jpg,x\n")
    with pytest.raises(ColumnError, match=r"t.csv has no column 'product_nmae'. Similar columns are: product name"):
        read_pairs(source, map={"title": "product_nmae"})
    with pytest.raises(ColumnError, match=r"no column 'zzz'. Its columns are: sku, photo, product name"):
        read_pairs(source, map={"title": "zzz"})
    with pytest.raises(ColumnError, match="is not a table, so its columns cannot be mapped"):
        read_pairs(tmp_path, map={"id": "sku"})


@given(st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none(), min_size=1, max_size=5), st.data())
def test_mapping_an_attribute_moves_its_value_and_leaves_the_others(row, data):
    table = Table("t", rows=[("row 1", row | {"image": "a.jpg"})])
    column = data.draw(st.sampled_from(sorted(row)))
    before = read_records(table)[0][0].attributes
    after = read_records(table, {"a Field of its own": column})[0][0].attributes
    assert after.get("a Field of its own") == row[column] or row[column] is None
    assert {name: value for name, value in after.items() if name != "a Field of its own"}.items() <= (
        before | row
    ).items()


# --- pictures of URLs


def test_a_url_is_found_in_the_folder_by_its_path_or_its_name(tmp_path):
    folder = write_pictures(
        tmp_path / "down",
        *("cdn.example/a/1/main.jpg", "2/main.jpg", "main.jpg", "née b.jpg", "no-ending.webp", "%41.jpg", "sku-9.png"),
    )
    names = {
        "https://cdn.example/a/1/main.jpg": "cdn.example/a/1/main.jpg",
        "https://other.example/b/2/main.jpg?width=10#x": "2/main.jpg",
        "//other.example/b/3/main.jpg": "main.jpg",
        "https://cdn.example/n%C3%A9e%20b.jpg": "née b.jpg",
        "https://cdn.example/i/no-ending?format=webp": "no-ending.webp",
        "https://cdn.example/%41.jpg": "%41.jpg",
        "sku-9": "sku-9.png",
        "https://cdn.example/": None,
        "https://cdn.example": None,
        "https://[broken/a.jpg": None,
    }
    source = write_jsonl(tmp_path / "t.jsonl", *({"image": name, "text": name} for name in names))
    pairs = read_pairs(source, images=folder)
    assert captions_by_name(pairs) == {found: (name,) for name, found in names.items() if found}
    assert set(skip_reasons(pairs)) == {name for name, found in names.items() if found is None}


HOSTILE = [
    "https://x.example/../../secret.jpg",
    "https://x.example/%2e%2e/%2e%2e/secret.jpg",
    "https://x.example/..%2f..%2fsecret.jpg",
    "https://x.example/a/..%5c..%5csecret.jpg",
    "https://../secret.jpg",
    "https://x.example/%00secret.jpg",
    "file:///etc/secret.jpg",
    "..",
    "https://x.example/..",
    "gate/secret.jpg",
    "https://x.example/gate/secret.jpg",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_image_name_leads_out_of_the_folder(tmp_path, name):
    write_pictures(tmp_path, "secret.jpg", "feed/x.jpg", "feed/down/x.jpg")
    (tmp_path / "feed" / "down" / "gate").symlink_to(tmp_path)
    source = write_jsonl(tmp_path / "feed" / "t.jsonl", {"image": name})
    for images in (None, tmp_path / "feed" / "down"):
        pairs = read_pairs(source, images=images)
        assert (len(pairs), len(pairs.skipped)) == (0, 1)


@given(st.text(st.sampled_from("ab./\\%2eEfF0~:?#@")))
def test_a_url_never_becomes_a_path_with_parent_folders(text):
    for name in (text, f"https://{text}", f"//x/{text}"):
        try:
            paths = list(_basename_candidates(name))
        except ImageError:
            continue
        assert all(not path.startswith("/") and ".." not in path.split("/") for path in paths)


# --- what breaks


def test_an_unreadable_feed_is_refused_in_one_line(tmp_path):
    header = "id,title,image_link,availability\n"
    assert "not in UTF-8: line 2" in read_error(
        write_text(tmp_path / "f.csv", header + "1,schön,a.jpg,in stock", encoding="cp1252")
    )
    assert "holds no images" in read_error(write_text(tmp_path / "f.csv", header))
    assert "no column that names an image" in read_error(write_text(tmp_path / "f.csv", "id,title,price\n1,x,5\n"))
    assert "Unpack it first" in read_error(write_text(tmp_path / "f.csv.gz", header))
    nothing = read_pairs(write_text(tmp_path / "f.csv", "\0\0\0\n\0x\n" + "\0" * 100))
    assert skip_reasons(nothing) == {"f.csv line 2": "has 1 values where the header has 0"}


def test_a_line_too_long_is_skipped_and_repeated_headers_are_numbered(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    header = "id,title,image_link,availability,color,color\n"
    rows = f"1,{'x' * (2**24 + 1)},a.jpg,in stock,r,g\n2,nul\0ok,a.jpg,in stock,r,g\n"
    pairs = read_pairs(write_text(tmp_path / "f.csv", header + rows))
    assert (pairs[0].id, pairs[0].captions) == ("2", ("nulok",))
    assert {name: pairs[0].attributes[name] for name in ("color", "color_2")} == {"color": "r", "color_2": "g"}
    assert "field larger than field limit" in skip_reasons(pairs)["f.csv line 2"]


# --- from feed to catalog


def test_a_changed_feed_is_synced(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for color in ("red", "green", "blue", "white", "black"):
        Image.new("RGB", (16, 16), color).save(folder / f"{color}.png")
    header = "id\ttitle\timage_link\tavailability\tprice\n"

    def feed(**prices):
        rows = (
            f"{color}\tA {color} bag\thttps://x.example/{color}.png\tin stock\t{price}\n"
            for color, price in prices.items()
        )
        return write_text(tmp_path / "feed.tsv", header + "".join(rows))

    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:

        def build(**prices):
            report = catalog.build(read_pairs(feed(**prices), images=folder))
            return report.added, report.changed, report.dropped, report.unchanged, len(report.skipped)

        assert build(red="5 USD", green="6 USD", blue="7 USD") == (3, 0, 0, 0, 0)
        assert build(red="5 USD", green="6 USD", blue="7 USD") == (0, 0, 0, 3, 0)
        assert build(red="5 USD", green="8 USD", white="9 USD", gone="1 USD") == (1, 1, 1, 1, 1)
        assert {hit.id for hit in catalog.search("bag", where={"price": {"$lt": 9}, "in_stock": True})} == {
            "red",
            "green",
        }
