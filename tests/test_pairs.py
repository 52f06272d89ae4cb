import json
import os
from pathlib import Path

import pytest
from pair_files import JPEG, captions_by_name, read_error, skip_reasons, write_jsonl, write_pictures, write_text

from retrieval.images import open_image
from retrieval.pairs import read_pairs


def test_captions_are_the_lines_of_the_file_of_the_same_name(tmp_path):
    write_pictures(tmp_path, "b.jpg", "a 1.JPG", "sub/née – 猫.jpg", "alone.png", "c.jpg")
    write_text(tmp_path / "b.txt", "one\r\n\r\n  two \t words \r\none\r\n")
    write_text(tmp_path / "a 1.TXT", "\ufeffmarked")
    write_text(tmp_path / "sub" / "née – 猫.txt", "eine Katze\n猫")
    write_text(tmp_path / "c.jpg.txt", "wide", encoding="utf-16")
    pairs = read_pairs(tmp_path)
    assert captions_by_name(pairs) == {
        "a 1.JPG": ("marked",),
        "alone.png": (),
        "b.jpg": ("one", "two words"),
        "c.jpg": ("wide",),
        "sub/née – 猫.jpg": ("eine Katze", "猫"),
    }
    assert (pairs.layout, pairs.root, pairs.source, pairs.skipped) == ("captioned folder", tmp_path, tmp_path, ())
    assert [pair.id for pair in pairs] == list(captions_by_name(pairs)) == sorted(captions_by_name(pairs))
    assert all(open_image(pair.image).size == (96, 64) for pair in pairs)


def test_a_json_file_beside_an_image_has_captions_and_attributes(tmp_path):
    write_pictures(tmp_path, "0001.jpg")
    write_text(
        tmp_path / "0001.json", json.dumps({"caption": "a dog", "url": "http://x/y.jpg", "width": 640, "sha": None})
    )
    pair = read_pairs(tmp_path)[0]
    assert (pair.captions, pair.attributes) == (("a dog",), {"url": "http://x/y.jpg", "width": 640})


def test_every_visible_file_is_read_or_skipped_and_hidden_ones_are_ignored(tmp_path):
    write_pictures(tmp_path, "a.jpg", "wrong.dat", "noending", ".hidden.jpg", "._a.jpg", "__MACOSX/b.jpg", ".git/c.jpg")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    write_text(tmp_path / "orphan.txt", "no picture")
    write_text(tmp_path / "notes.md", "# Notes")
    write_text(tmp_path / "products.csv", "image_link,title\na.jpg,A\n")
    write_text(tmp_path / "big.txt", "x" * 2_000_000)
    write_pictures(tmp_path, "big.jpg")
    pairs = read_pairs(tmp_path)
    assert list(captions_by_name(pairs)) == ["a.jpg", "big.jpg", "noending", "wrong.dat"]
    assert skip_reasons(pairs) == {
        "big.txt": "has more than 1,048,576 bytes, too many for captions",
        "notes.md": "is not an image (starts with '# Notes')",
        "orphan.txt": "has no image of the same name beside it",
        "products.csv": "is not an image; to read pairs from it, give the file itself and not its folder",
    }


def test_captions_in_another_encoding_are_skipped_and_the_image_is_kept(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    write_text(tmp_path / "a.txt", "gut\nschön", encoding="latin-1")
    pairs = read_pairs(tmp_path)
    assert captions_by_name(pairs) == {"a.jpg": ()}
    assert "line 2 holds the byte 0xf6; save it as UTF-8" in skip_reasons(pairs)["a.txt"]


def test_links_stay_inside_the_folder_and_cannot_loop(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    write_pictures(outside, "secret.jpg")
    write_pictures(root, "real/a.jpg")
    (root / "inside.jpg").symlink_to(root / "real" / "a.jpg")
    (root / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "elsewhere").symlink_to(outside)
    (root / "real" / "loop").symlink_to(root)
    pairs = read_pairs(root)
    assert list(captions_by_name(pairs)) == ["inside.jpg", "real/a.jpg"]
    leads_out = "is a link that leads out of the folder"
    assert skip_reasons(pairs) == {"elsewhere": leads_out, "out.jpg": leads_out}
    (tmp_path / "alias").symlink_to(root)
    assert read_pairs(tmp_path / "alias").source == root


def test_a_name_that_is_not_utf8_is_skipped_with_its_bytes_shown(tmp_path):
    write_pictures(tmp_path, "a.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(JPEG)
    assert skip_reasons(read_pairs(tmp_path)) == {"\\udcff.jpg": "has a name that is not UTF-8; rename it"}


def test_an_unknown_layout_is_refused_with_the_accepted_ones(tmp_path):
    accepted = "Pairs are read from a CSV, TSV"
    assert f"does not exist. {accepted}" in read_error(tmp_path / "nothing")
    assert f"holds no images. {accepted}" in read_error(tmp_path)
    assert f"archive.zip is not a source of pairs. Unpack it first. {accepted}" in read_error(
        write_text(tmp_path / "archive.zip", "")
    )
    assert accepted in read_error(write_text(tmp_path / "picture.jpg", ""))
    os.mkfifo(tmp_path / "pipe.csv")
    assert accepted in read_error(tmp_path / "pipe.csv")
    assert "is not a folder" in read_error(tmp_path, images=tmp_path / "nowhere")


def test_names_that_lead_elsewhere_are_skipped_each_with_its_reason(tmp_path):
    root = write_pictures(tmp_path / "root", "in/a.jpg", "b.jpg")
    write_pictures(tmp_path, "outside.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "gate").symlink_to(tmp_path)
    names = {
        "in/../in/./a.jpg": None,
        str(root / "b.jpg"): None,
        "in\\a.jpg": None,
        "http://shop.example/b.jpg": "is a URL, which is not fetched; give the folder of the images with --images",
        "s3://bucket/b.jpg": "is a URL",
        "//cdn.example/b.jpg": "is a URL",
        "data:image/png;base64,AAAA": "data URL",
        "../outside.jpg": "leads out of",
        str(tmp_path / "outside.jpg"): "is outside of",
        "C:\\pictures\\b.jpg": "is outside of",
        "link.jpg": "is a link that leads out of the folder",
        "gate/outside.jpg": "is a link that leads out of the folder",
        "missing.jpg": "there is no such file",
        "b.jpg/c.jpg": "there is no such file",
        "in": "is a folder",
        "x" * 5000: "cannot be read",
    }
    pairs = read_pairs(write_jsonl(root / "t.jsonl", *({"file_name": name} for name in names)))
    assert sorted(captions_by_name(pairs)) == ["b.jpg", "in/a.jpg"]
    reasons = skip_reasons(pairs)
    for name, fragment in names.items():
        if fragment is not None:
            assert fragment in reasons.pop(name[:300])
    assert reasons == {}


def test_a_folder_of_images_maps_urls_and_foreign_paths_by_their_last_part(tmp_path):
    folder = write_pictures(tmp_path / "downloads", "a b.jpg", "c.jpg", "d.jpg", "sub/e.jpg")
    names = [
        "https://x.example/p/a%20b.jpg?width=200",
        "C:\\pictures\\c.jpg",
        "/mnt/d.jpg",
        "../../d.jpg",
        "sub/e.jpg",
        "no.jpg",
    ]
    source = write_jsonl(tmp_path / "t.jsonl", *({"image_url": name, "text": str(n)} for n, name in enumerate(names)))
    pairs = read_pairs(source, images=folder)
    assert captions_by_name(pairs) == {"a b.jpg": ("0",), "c.jpg": ("1",), "d.jpg": ("2", "3"), "sub/e.jpg": ("4",)}
    assert pairs.root == folder
    assert list(skip_reasons(pairs)) == ["no.jpg"]


def test_names_in_another_unicode_normal_form_are_found(tmp_path):
    write_pictures(tmp_path, "cafe\u0301.jpg")
    assert captions_by_name(read_pairs(write_jsonl(tmp_path / "t.jsonl", {"image": "caf\u00e9.jpg"}))) == {
        "cafe\u0301.jpg": ()
    }


def test_images_in_an_images_folder_beside_the_table_are_found(tmp_path):
    write_pictures(tmp_path, "images/a.jpg")
    pairs = read_pairs(write_text(tmp_path / "t.csv", "image,caption\na.jpg,one\na.jpg,two\nb.jpg,three\nb.jpg,four\n"))
    assert (pairs.root, captions_by_name(pairs)) == (tmp_path / "images", {"a.jpg": ("one", "two")})
    assert list(skip_reasons(pairs)) == ["b.jpg"]  # once


def test_rows_of_one_id_are_one_item_and_rows_of_one_image_one_pair(tmp_path):
    write_pictures(tmp_path, "a.jpg", "b.jpg")
    rows = [
        {"id": 7, "image": "a.jpg", "text": "one", "x": 1},
        {"id": 7.0, "image": "a.jpg", "text": "two", "x": 2, "y": 3},
        {"id": "7", "image": ["b.jpg", "a.jpg"], "text": "one"},
        {"id": None, "image": "a.jpg", "text": "other"},
    ]
    pairs = read_pairs(write_jsonl(tmp_path / "t.jsonl", *rows))
    assert [(pair.id, pair.image.name, pair.captions) for pair in pairs] == [
        ("7", "a.jpg", ("one", "two")),
        ("7", "b.jpg", ("one",)),
        ("a.jpg", "a.jpg", ("other",)),
    ]
    assert pairs[0].attributes == {"x": 1, "y": 3}
    assert {item: len(members) for item, members in pairs.by_item().items()} == {"7": 2, "a.jpg": 1}


@pytest.mark.parametrize(
    ("name", "count_and_layout"),
    [
        ("luma/products.csv", (715, "table")),
        ("grocery", (1981, "metadata")),
        ("clothing", (2400, "metadata")),
        ("tuxpaint", (950, "captioned folder")),
        ("coco_open/captions.json", (122, "coco")),
        ("openclipart", (4192, "metadata")),
        ("emoji", (1911, "metadata")),
        ("dishes_zh", (342, "metadata")),
        ("recipes", (160, "metadata")),
        ("illustrations", (106, "metadata")),
    ],
)
def test_real_data_sets_are_read_completely(shared_data, name, count_and_layout):
    pairs = read_pairs(shared_data(name))
    assert (len(pairs), pairs.layout) == count_and_layout
    assert pairs.skipped == ()
    assert all(pair.captions for pair in pairs)


def test_the_shops_feed_has_typed_attributes(shared_data):
    pair = read_pairs(shared_data("luma/products.csv"))[0]
    assert pair.id == "mh01-black_main"
    assert pair.captions[0] == "Chaz Kangeroo Hoodie Black"
    assert {name: pair.attributes[name] for name in ("color", "size", "price", "has_options")} == {
        "color": "Black",
        "size": "XS",
        "price": 52.0,
        "has_options": 0,
    }
    assert pair.attributes["skus"][0] == "MH01-XS-Black"
