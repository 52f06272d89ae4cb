"""Shopify's export of products, with the columns of before and since 2025."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pair_files import skip_reasons, write_pictures, write_text

from retrieval.pairs import read_pairs
from retrieval.pairs.feeds.shopify import read_products
from retrieval.pairs.tables import Table

CDN = "https://cdn.shopify.com/s/files/1/0001/products"

EXPORT = f"""Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Variant SKU,Variant Grams,Variant Inventory Tracker,Variant Inventory Qty,Variant Inventory Policy,Variant Price,Variant Compare At Price,Variant Barcode,Image Src,Image Position,Image Alt Text,Gift Card,SEO Title,Google Shopping / Google Product Category,Google Shopping / Gender,Google Shopping / Custom Label 0,Fabric (product.metafields.custom.fabric-kind),Rating,Variant Image,Cost per item,Status
tee,Example Tee,"<p>Soft &amp; <em>light</em>.</p>
<p>Made in Porto.</p>",Acme,Apparel & Accessories > Clothing,Shirt,"summer, men's",true,Color,Black,Size,S,'007,200,shopify,0,deny,25.00,30.00,'0123,{CDN}/tee-front.jpg?v=1,2,Front of the tee,false,SEO,Apparel & Accessories > Clothing > Shirts,male,new,cotton; elastane,4.5,{CDN}/tee-black.jpg?v=1,9.99,active
tee,,,,,,,,,Black,,M,TEE-BM,200,shopify,3,deny,27.50,,,{CDN}/tee-back.jpg?v=1,1,,,,,,,,,{CDN}/tee-black.jpg?v=1,9.99,
tee,,,,,,,,,White,,M,TEE-WM,200,shopify,-1,deny,24,,,,,,,,,,,,,{CDN}/tee-front.jpg?v=1,,
tee,,,,,,,,,,,,,,,,,,,,{CDN}/missing.jpg,3,,,,,,,,,,,
mug,Mug,,Acme,,,,true,Title,Default Title,,,MUG,0,shopify,0,deny,8,,,{CDN}/mug.png,1,,,,,,,,,,,active
made-to-order,Ring,Gold,Acme,,,,true,Title,Default Title,,,,0,,,deny,8,,,{CDN}/ring.jpg,1,,,,,,,,,,,active
secret,Next year's,,Acme,,,,true,Title,Default Title,,,S,0,,,deny,8,,,{CDN}/mug.png,1,,,,,,,,,,,draft
hidden,Hidden,,Acme,,,,FALSE,Title,Default Title,,,S,0,,,deny,8,,,{CDN}/mug.png,1,,,,,,,,,,,active
bare,No picture,,Acme,,,,true,Title,Default Title,,,S,0,,,deny,ask,,,,,,,,,,,,,,,active
mug,Another Mug,,Acme,,,,true,Title,Default Title,,,MUG2,0,shopify,9,deny,1,,,{CDN}/ring.jpg,1,,,,,,,,,,,active
,Nothing,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,
"""  # noqa: E501 (as Shopify writes it)


@pytest.fixture
def folder(tmp_path):
    names = ("tee-front.jpg", "tee-back.jpg", "tee-black.jpg", "mug.png", "ring.jpg")
    return write_pictures(tmp_path / "pictures", *names)


def test_a_product_is_all_rows_of_its_handle(tmp_path, folder):
    pairs = read_pairs(write_text(tmp_path / "products_export.csv", EXPORT), images=folder)
    assert pairs.layout == "shopify"
    assert [(pair.id, pair.image.name, pair.captions) for pair in pairs] == [
        ("tee", "tee-back.jpg", ("Example Tee", "Soft & light. Made in Porto.")),
        ("tee", "tee-front.jpg", ("Example Tee", "Soft & light. Made in Porto.", "Front of the tee")),
        ("tee", "tee-black.jpg", ("Example Tee", "Soft & light. Made in Porto.")),
        ("mug", "mug.png", ("Mug",)),
        ("made-to-order", "ring.jpg", ("Ring", "Gold")),
    ]
    assert (
        pairs[0].attributes
        == pairs[1].attributes
        == {
            "brand": "Acme",
            "type": "Shirt",
            "product_category": ["Apparel & Accessories", "Clothing"],
            "tags": ["summer", "men's"],
            "status": "active",
            "price": 24.0,
            "price_max": 27.5,
            "compare_at_price": 30.0,
            "skus": ["007", "TEE-BM", "TEE-WM"],
            "barcodes": ["0123"],
            "in_stock": True,
            "color": ["Black", "White"],
            "size": ["S", "M"],
            "gift_card": False,
            "google_product_category": ["Apparel & Accessories", "Clothing", "Shirts"],
            "gender": "male",
            "custom_label_0": "new",
            "fabric_kind": ["cotton", "elastane"],
            "rating": 4.5,
        }
    )
    mug = {"brand": "Acme", "status": "active", "price": 8.0, "price_max": 8.0, "skus": ["MUG"], "in_stock": False}
    assert pairs[3].attributes == mug
    assert pairs[4].attributes["in_stock"] is True


def test_skipped_rows_of_an_export_have_line_and_handle(tmp_path, folder):
    pairs = read_pairs(write_text(tmp_path / "e.csv", EXPORT), images=folder)
    assert skip_reasons(pairs) == {
        "e.csv line 13": "has no handle",
        "e.csv line 12 (mug)": "repeats the handle of line 7 under another title",
        "e.csv line 9 (secret)": "has the status draft; --map status= adds products that are not active",
        "e.csv line 10 (hidden)": "is not published; --map published= adds unpublished products",
        "e.csv line 11 (bare)": "names no image",
        f"{CDN}/missing.jpg": f"there is no such file in {folder} (e.csv line 6)",
    }
    assert [one.reason for one in pairs.skipped if one.id == "bare"] == [
        "has variant_price 'ask', which is not a price; it is left out",
        "names no image",
    ]


def test_drafts_and_unpublished_products_are_added_when_those_columns_are_dropped(tmp_path, folder):
    pairs = read_pairs(write_text(tmp_path / "e.csv", EXPORT), images=folder, map={"status": "", "published": ""})
    assert {pair.id for pair in pairs} == {"tee", "mug", "made-to-order", "secret", "hidden"}


def test_columns_are_mapped_to_fields_by_name(tmp_path, folder):
    fields = {"id": "Variant SKU", "price": "Cost per item", "brand": "type", "tags": "", "color": ""}
    source = write_text(tmp_path / "e.csv", EXPORT.partition("\ntee,,")[0] + "\n")
    pair = read_pairs(source, images=folder, map=fields)[0]
    assert (pair.id, pair.attributes["price"], pair.attributes["brand"]) == ("'007", 9.99, "Shirt")
    assert pair.attributes.keys().isdisjoint({"tags", "color", "skus", "type"})


def test_column_names_since_2025_are_read_alike(tmp_path, folder):
    source = write_text(
        tmp_path / "e.csv",
        "Title,URL handle,Description,Vendor,Product category,Type,Tags,Published on online store,Status,SKU,Barcode,"
        "Option1 name,Option1 value,Price,Compare-at price,Cost per item,Inventory tracker,Inventory quantity,"
        "Continue selling when out of stock,Product image URL,Image position,Image alt text,Variant image URL\n"
        f"Mug,mug,<p>Blue</p>,Acme,,Cup,,TRUE,Active,M1,,Size,L,9.50,,3,shopify,0,CONTINUE,{CDN}/mug.png,1,A mug,\n",
    )
    pair = read_pairs(source, images=folder)[0]
    assert (pair.id, pair.captions) == ("mug", ("Mug", "Blue", "A mug"))
    assert pair.attributes == {
        "brand": "Acme",
        "type": "Cup",
        "status": "active",
        "price": 9.5,
        "price_max": 9.5,
        "skus": ["M1"],
        "in_stock": True,
        "size": ["L"],
    }


def test_an_export_without_quantities_has_no_stock_attribute(tmp_path, folder):
    header = "Handle,Title,Variant SKU,Variant Price,Option1 Name,Option1 Value,Image Src\n"
    pairs = read_pairs(write_text(tmp_path / "e.csv", header + "mug,Mug,M,3,Price,high,mug.png\n"), images=folder)
    assert pairs[0].attributes == {"price": 3.0, "price_max": 3.0, "skus": ["M"], "option_price": ["high"]}


@given(st.permutations([1, 2, 3, 4, 5]), st.lists(st.sampled_from("ab"), min_size=5, max_size=5))
def test_images_are_ordered_by_position_whatever_the_order_of_rows(positions, handles):
    rows = [
        (f"line {n}", {"Handle": handle, "Image Src": f"{position}.jpg", "Image Position": str(position)})
        for n, (position, handle) in enumerate(zip(positions, handles, strict=True))
    ]
    found = [(record.id, int(record.images[0][0])) for record in read_products(Table("t", rows=rows))]
    for handle in set(handles):
        mine = [position for identity, position in found if identity == handle]
        assert mine == sorted(p for p, h in zip(positions, handles, strict=True) if h == handle)


@given(
    st.lists(st.dictionaries(st.sampled_from(EXPORT.partition("\n")[0].split(",")), st.text(max_size=8)), max_size=4)
)
def test_no_cell_of_an_export_crashes(rows):
    file = io.StringIO()
    writer = csv.DictWriter(file, EXPORT.partition("\n")[0].split(","))
    writer.writerows(rows)
    table = Table("t", rows=[(f"line {n}", row) for n, row in enumerate(rows)], typed=False)
    assert all(record.id for record in read_products(table))
