import csv

import pytest
from hostile_files import encoded
from hypothesis import given
from hypothesis import strategies as st
from pair_files import JPEG, captions_by_name, read_error, skip_reasons, write_jsonl, write_pictures, write_text
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import open_image
from retrieval.pairs import read_pairs
from retrieval.pairs.columns import collect_texts, infer_types, unpack_attributes
from retrieval.pairs.tables import parse_json


def test_metadata_in_the_image_folder_layout_has_captions_and_attributes(tmp_path):
    write_pictures(tmp_path, "images/a.jpg", "images/b.jpg")
    write_jsonl(
        tmp_path / "metadata.jsonl",
        {"file_name": "images/a.jpg", "text": ["one", "two"], "price": 2.5, "tags": ["x"], "gone": None},
        {"file_name": "images/b.jpg", "text": None, "title": "B", "captions": "bee"},
    )
    pairs = read_pairs(tmp_path)
    assert pairs.layout == "metadata"
    assert captions_by_name(pairs) == {"images/a.jpg": ("one", "two"), "images/b.jpg": ("bee",)}
    assert [pair.attributes for pair in pairs] == [{"price": 2.5, "tags": ["x"]}, {"title": "B"}]


def test_metadata_in_subfolders_names_the_files_beside_it(tmp_path):
    write_pictures(tmp_path, "train/a.jpg", "test/a.jpg")
    for split in ("train", "test"):
        write_text(tmp_path / split / "metadata.csv", f"file_name,text\na.jpg,{split}\n../train/a.jpg,shared\n")
    assert captions_by_name(read_pairs(tmp_path)) == {"test/a.jpg": ("test",), "train/a.jpg": ("shared", "train")}


def test_a_shop_feed_is_typed_by_column(tmp_path):
    write_pictures(tmp_path, "a.jpg", "b.jpg")
    source = write_text(
        tmp_path / "products.csv",
        "id,image_link,title,description,price,count,stock,gtin,sku,size,skus,note,attributes\n"
        'A1,a.jpg,Hoodie,"Warm, ""soft""\nand grey",52,3,TRUE,0012345678905,12E45,32,A-1|A-2,,'
        '"color=Black,wash=hot, or not"\n'
        "0002,b.jpg,Shirt,,19.90,-4,false,4012345678901,007,XS,B-1,new,"
        '"{""color"": ""Red"", ""use"": ""Gym\\nYoga""}"\n',
    )
    first, second = read_pairs(source)
    assert first.id == "A1"
    assert first.captions == ("Hoodie", 'Warm, "soft" and grey')
    assert first.attributes == {
        "color": "Black",
        "wash": "hot, or not",
        "price": 52.0,
        "count": 3,
        "stock": True,
        "gtin": "0012345678905",
        "sku": "12E45",
        "size": "32",
        "skus": ["A-1", "A-2"],
    }
    assert second.id == "0002"
    assert second.captions == ("Shirt",)
    assert second.attributes == {
        "color": "Red",
        "use": ["Gym", "Yoga"],
        "price": 19.9,
        "count": -4,
        "stock": False,
        "gtin": "4012345678901",
        "sku": "007",
        "size": "XS",
        "skus": ["B-1"],
        "note": "new",
    }


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["1", "2.50"], [1.0, 2.5]),
        (["1", "x"], ["1", "x"]),
        (["007", "8"], ["007", "8"]),
        (["True", "FALSE"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["1", ""], [1, None]),
        (["12E45", "1"], ["12E45", "1"]),
        (["9" * 19, "1"], ["9" * 19, "1"]),
        (["nan", "1"], [None, 1]),
        (["1.5", "n/a", "N/A", "null", "NULL", "None", "-", "", "2"], [1.5, *[None] * 7, 2.0]),
        (["n/a", "-"], ["n/a", "-"]),
        (["n/a", "x"], ["n/a", "x"]),
        (["true", "-"], ["true", "-"]),
        (["1|2", "-"], [[1, 2], []]),
        (["a|b", "c"], [["a", "b"], ["c"]]),
        (["1|2", "3"], [[1, 2], [3]]),
        (["Hat | Shoe", "c|d"], ["Hat | Shoe", "c|d"]),
        (['["a", 1]', "[]"], [["a", 1], []]),
        (["[sic]", "[]"], ["[sic]", "[]"]),
        (["+1", "2"], ["+1", "2"]),
        (["１", "2"], ["１", "2"]),
    ],
)
def test_a_column_of_text_takes_the_type_that_all_its_cells_have(cells, values):
    rows = [{"column": cell} for cell in cells]
    infer_types(rows)
    assert [row["column"] for row in rows] == values


@given(st.lists(st.integers(-(10**15), 10**15) | st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1))
def test_numbers_written_as_text_come_back_equal(numbers):
    rows = [{"n": format(number, "f") if isinstance(number, float) else str(number)} for number in numbers]
    infer_types(rows)
    assert [row["n"] for row in rows] == pytest.approx(numbers)


@pytest.mark.parametrize(("odd", "told"), [(["on request"], True), (["on request"] * 4, True), (["S", "M"], False)])
def test_one_word_among_a_few_numbers_is_reported(tmp_path, odd, told):
    """Whatever its share below a half: sizes are of several words."""
    write_pictures(tmp_path, "a.jpg")
    cells = [*odd, "9.5", "5", "6", "7", "8"]
    rows = [f"{place},a.jpg,{cell}" for place, cell in enumerate(cells)]
    pairs = read_pairs(write_text(tmp_path / "t.csv", "\n".join(["id,image,price", *rows])))
    assert [repr(odd[0]) in notice for notice in pairs.notices] == [True] * told


def test_a_mostly_numeric_text_column_is_reported_with_its_first_odd_cell(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    rows = [f"{n},a.jpg,{n}.5,{n:02d},{n},price=1,{n}" for n in range(1, 19)]
    odd = ["19,a.jpg,about 60,19,XS,price=2,n/a", '20,a.jpg,"7,50",20,XL,price=ten,3']
    source = write_text(
        tmp_path / "t.csv", "\n".join(["id,image,cost,code,size,attributes,weight", *rows, *odd, "21,a.jpg,5,21,M,,4"])
    )
    pairs = read_pairs(source)
    said = "t.csv: the column {} is text, not numbers, since line {} holds {!r}; fix such cells to compare it by <, >"
    assert pairs.notices == (said.format("price", 21, "ten"), said.format("cost", 20, "about 60"))
    assert [pair.attributes.get("weight") for pair in pairs][16:] == [17, 18, None, 3, 4]
    assert (pairs[0].attributes["cost"], pairs[0].attributes["code"]) == ("1.5", "01")
    assert pairs.skipped == ()


def test_attributes_packed_in_one_cell_are_unpacked():
    assert unpack_attributes("a=1,b=x, y,c=") == {"a": "1", "b": "x, y", "c": ""}
    assert unpack_attributes('{"a": {"b": 1}}') == {"a": {"b": 1}}
    assert unpack_attributes({"a": 1}) == {"a": 1}
    assert unpack_attributes("nothing of the kind") == {"attributes": "nothing of the kind"}
    assert unpack_attributes("{broken") == {"attributes": "{broken"}
    assert unpack_attributes(None) == unpack_attributes("") == {}


def test_captions_are_collected_from_values_of_any_type():
    assert collect_texts(["a", None, "", "  ", ["b", ["a", 3]], float("nan"), {"en": "c"}]) == ("a", "b", "3", "c")
    assert collect_texts(['["x", "y"]', "['it''s', 'z']", "[sic]", "[1] one"]) == (
        "x",
        "y",
        "its",
        "z",
        "[sic]",
        "[1] one",
    )
    assert collect_texts(["two\n lines\0and\u00a0more"]) == ("two lines and more",)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_separator_and_encoding_of_an_office_program_is_read(tmp_path, encoding, separator):
    write_pictures(tmp_path, "a.jpg")
    text = f"Image Link{separator}Caption{separator}Year\r\na.jpg{separator}schön{separator}2020\r\n\r\n"
    pair = read_pairs(write_text(tmp_path / "table.csv", text, encoding=encoding))[0]
    assert (pair.captions, pair.attributes) == (("schön",), {"Year": 2020})


def test_repeated_and_numbered_caption_columns_are_all_captions(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    source = write_text(
        tmp_path / "t.tsv", "\tfilepath\ttext\ttext\tcaption_1\tcolor\tcolor\n0\ta.jpg\tone\ttwo\tthree\tr\tg\n"
    )
    pair = read_pairs(source)[0]
    assert pair.captions == ("one", "two", "three")
    assert pair.attributes == {"color": "r", "color_2": "g"}


def test_a_stray_quote_skips_one_row_only(tmp_path):
    """The quote of line 3 runs on to that of line 5, and what comes after that is no CSV."""
    write_pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    rows = 'file_name,text\na.jpg,one\nb.jpg,"broken\nc.jpg,three\nd.jpg,"fine, really"\n'
    pairs = read_pairs(write_text(tmp_path / "t.csv", rows))
    assert captions_by_name(pairs) == {"a.jpg": ("one",), "c.jpg": ("three",), "d.jpg": ("fine, really",)}
    assert [one.name for one in pairs.skipped] == ["t.csv line 3"]


def test_bad_csv_rows_are_skipped_by_line_number_and_the_others_read(tmp_path):
    write_pictures(tmp_path, "a.jpg", "b.jpg")
    long = "x" * 200_000
    good = f'file_name,text\na.jpg,"{long}"\n'
    bad = 'b.jpg,too,many\n"b.jpg"x,bad quote\nb.jpg\n,nameless\nb.jpg,nul\0\n'
    source = write_text(tmp_path / "t.csv", good + bad)
    limit = csv.field_size_limit()
    pairs = read_pairs(source)
    assert csv.field_size_limit() == limit
    assert captions_by_name(pairs) == {"a.jpg": (long,), "b.jpg": ("nul",)}
    assert skip_reasons(pairs) == {
        "t.csv line 3": "has 3 values where the header has 2",
        "t.csv line 4": "is not CSV (',' expected after '\"'); double a quote inside a cell, and quote the cell",
        "t.csv line 6": "names no image",
    }
    assert [one.name for one in pairs.skipped if one.may_hide_items] == ["t.csv line 3", "t.csv line 4"]


def test_a_quote_that_is_never_closed_refuses_the_file_and_names_its_line(tmp_path):
    """All rows after it are inside the quote: to sync with those before would drop them from a catalog."""
    write_pictures(tmp_path, "a.jpg")
    rows = 'id,image,title\n1,a.jpg,"two\nlines"\n2,a.jpg,5" pipe\n3,a.jpg,"it\'s ""open""\n4,a.jpg,""""\n5,a.jpg,x\n'
    assert read_error(write_text(tmp_path / "t.csv", rows.replace('""""', 'a ""b""'))) == (
        "t.csv line 5 opens a quote that is never closed, with all rows after it inside. "
        "No row of the file is taken; fix that line."
    )


def test_in_a_tsv_a_line_that_is_not_csv_keeps_its_quotes(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    lines = [
        *["id\timage\ttitle\tsize", '1\ta.jpg\t"Best" shoe\tS', '2\ta.jpg\t"Open hat\tM', '3\ta.jpg\t"Two\nlines"\tL'],
        *['4\ta.jpg\t5" pipe\t""', '5\ta.jpg\tlast\t"'],
    ]
    pairs = read_pairs(write_text(tmp_path / "t.tsv", "\r\n".join(lines)))
    assert pairs.skipped == ()
    assert [(pair.id, *pair.captions, pair.attributes.get("size")) for pair in pairs] == [
        ("1", '"Best" shoe', "S"),
        ("2", '"Open hat', "M"),
        ("3", "Two lines", "L"),
        ("4", '5" pipe', None),
        ("5", "last", '"'),
    ]


def test_bad_jsonl_lines_are_skipped_by_number_and_the_others_read(tmp_path):
    write_pictures(tmp_path, "a.jpg", "b.jpg")
    source = tmp_path / "t.jsonl"
    source.write_bytes(
        b'\xef\xbb\xbf{"image": "a.jpg", "text": "one", "n": NaN, "big": 123456789012345678901234567890}\r\n'
        b'{"image": "b.jpg", \r\n\r\n[1]\r\n{"image": "b.jpg", "text": "caf\xe9"}\r\n{"text": "none"}\r\n'
        b'{"image": {"path": "b.jpg"}, "text": "half \\ud83d", "ok": "\\ud83d\\ude00"}\r\n' + b"[" * 100_000
    )
    pairs = read_pairs(source)
    assert captions_by_name(pairs) == {"a.jpg": ("one",), "b.jpg": ("half ?",)}
    assert pairs[0].attributes == {"big": "123456789012345678901234567890"}
    assert pairs[1].attributes == {"ok": "😀"}
    assert list(skip_reasons(pairs)) == [f"t.jsonl line {number}" for number in (2, 4, 5, 8, 6)]
    assert skip_reasons(pairs)["t.jsonl line 6"] == "names no image"
    assert "0xe9" in skip_reasons(pairs)["t.jsonl line 5"]


def test_an_encoding_other_than_utf8_is_refused_with_the_line(tmp_path):
    source = write_text(tmp_path / "t.csv", "file_name,text\na.jpg,ok\nb.jpg,schön\n", encoding="cp1252")
    assert read_error(source) == "t.csv is not in UTF-8: line 3 holds the byte 0xf6; save it as UTF-8"


def test_a_table_without_an_image_column_is_refused_with_the_accepted_names(tmp_path):
    message = read_error(write_text(tmp_path / "t.csv", "picture,text\na.jpg,x\n"))
    assert "no column that names an image, such as file_name, filepath, image, image_link" in message
    assert "Its columns are: picture, text" in message


def test_parquet_has_image_names_or_embedded_images(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_pictures(tmp_path, "a.jpg")
    named = pa.table({"file_name": ["a.jpg"], "text": [["x", "y"]], "n": [3], "when": pa.array([0], pa.timestamp("s"))})
    parquet.write_table(named, tmp_path / "named.parquet")
    pair = read_pairs(tmp_path / "named.parquet")[0]
    assert (pair.captions, pair.attributes) == (("x", "y"), {"n": 3, "when": "1970-01-01T00:00:00"})

    colours = [(10 * n, 0, 0) for n in range(7)]
    cells = [
        {"bytes": encoded(Image.new("RGB", (8, 8), colour), "PNG"), "path": f"{n}.png"}
        for n, colour in enumerate(colours)
    ]
    cells[5] = {"bytes": None, "path": None}
    table = pa.table({"image": cells, "caption": [f"number {n}" for n in range(7)], "raw": [b"x"] * 7})
    parquet.write_table(table, tmp_path / "packed.parquet", row_group_size=3)
    pairs = read_pairs(tmp_path / "packed.parquet")
    assert captions_by_name(pairs) == {f"packed.parquet/{n}": (f"number {n}",) for n in range(7)}
    assert all(pair.attributes == {} for pair in pairs)
    for n in (6, 0, 3, 1, 6):
        assert open_image(pairs[n].image).getpixel((0, 0)) == colours[n]
    with pytest.raises(ImageError, match="is empty"):
        open_image(pairs[5].image)

    table = pa.table(
        {"image": [{"bytes": None, "path": "a.jpg"}], "text": ["by path"]},
        schema=pa.schema(
            [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("text", pa.string())]
        ),
    )
    parquet.write_table(table, tmp_path / "paths.parquet")
    assert captions_by_name(read_pairs(tmp_path / "paths.parquet")) == {"a.jpg": ("by path",)}
    assert "is not a Parquet file" in read_error(write_text(tmp_path / "broken.parquet", "PAR1 no"))


def test_parquet_shards_in_a_folder_are_read_in_order(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "data").mkdir()
    for shard in range(2):
        table = pa.table({"jpg": [JPEG], "text": [f"shard {shard}"]})
        parquet.write_table(table, tmp_path / "data" / f"train-{shard}.parquet")
    pairs = read_pairs(tmp_path)
    assert captions_by_name(pairs) == {f"data/train-{n}.parquet/0": (f"shard {n}",) for n in range(2)}
    assert pairs[1].image.read() == JPEG


def test_the_separator_is_the_most_frequent_one_of_the_header(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    pair = read_pairs(write_text(tmp_path / "t.csv", "image;text;height, cm\na.jpg;x, y;3\n"))[0]
    assert (pair.captions, pair.attributes) == (("x, y",), {"height, cm": 3})


def test_json_integers_beyond_64_bits_are_text_and_nan_is_none():
    assert parse_json("[1, 99999999999999999999, -9223372036854775808, 1.5, NaN, 1e999]") == [
        1,
        "99999999999999999999",
        "-9223372036854775808",
        1.5,
        None,
        None,
    ]
